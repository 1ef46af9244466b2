"""A harness that clipq did not write gets the numbers of `clipq eval`, of an int8 model, on the same files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torch.utils.data import DataLoader

import clipq
from clipq.resources import resource

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]  # of other people's packages

COUNT = 80
TEMPLATES = ["a drawing of {c}", "an emoji of {c}", "{c}, clip art"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder a class, as both `clipq eval` and torchvision read them: 80 drawings, spread over all that ship."""
    folder = tmp_path_factory.mktemp("classes")
    rows = parquet.read_table(resource("eval", "data", "drawings.parquet")).to_pylist()
    names = resource("eval", "data", "drawings.classes.txt").read_text("utf-8").splitlines()
    for row in rows[:: len(rows) // COUNT][:COUNT]:
        place = folder / names[row["label"]].replace("/", " ")
        place.mkdir()
        Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").save(place / "0.png")
    return folder


@pytest.fixture(scope="module")
def model() -> clipq.Model:
    return clipq.load("clipq-tiny")


@pytest.fixture(scope="module")
def data(model, folder):
    from torchvision.datasets import ImageFolder

    return ImageFolder(folder, model.preprocess)


def evaluated(model: clipq.Model, folder: Path, templates: list[str]) -> clipq.Result:
    """What `clipq eval` says of the folder."""
    task = folder.parent / f"{len(templates)}.toml"
    task.write_text(
        f'name = "folder"\nversion = 1\n[dataset]\nkind = "class-folder"\n[prompts]\ntemplates = {templates}\n'
    )
    return clipq.evaluate(model, task, data=folder)


def counted(output: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...] = (1,)) -> list[float]:
    hits = output.topk(max(topk), dim=1).indices == target[:, None]
    return [float(hits[:, :k].sum()) / len(target) for k in topk]


def test_top1_and_top5_are_those_of_clipq_eval(model, folder, data, monkeypatch):
    pytest.importorskip("clip_benchmark")
    from clip_benchmark.metrics import zeroshot_classification

    own = evaluated(model, folder, TEMPLATES).metrics
    try:  # its counting makes a float of an array of one number, which numpy 2.4 and later refuse
        zeroshot_classification.accuracy(torch.eye(5), torch.arange(5), topk=(1,))
    except TypeError:
        monkeypatch.setattr(zeroshot_classification, "accuracy", counted)
    found = zeroshot_classification.evaluate(
        model, DataLoader(data, batch_size=32), model.tokenizer, data.classes, TEMPLATES, device="cpu", amp=False
    )
    assert (found["acc1"], found["acc5"]) == pytest.approx((own["top1"], own["top5"]), abs=1e-9)
    assert found["mean_per_class_recall"] == pytest.approx(own["mean_per_class_recall"], abs=1e-9)
    assert 0.2 < own["top1"] < own["top5"] < 1  # neither chance nor all of them: something could differ


def recall_both_ways(images: torch.Tensor, texts: torch.Tensor, k: int) -> tuple[float, float]:
    """Of texts [n, D] the share whose own image is among the first k, and the other way round."""
    cosines = (texts.double() @ images.double().T).numpy()
    own = cosines.diagonal()
    return ((cosines > own[:, None]).sum(1) < k).mean(), ((cosines > own[None]).sum(0) < k).mean()


def test_retrieval_is_that_of_the_embeddings_clipq_eval_keeps(model, folder, data):
    """`clipq eval` counts no retrieval; of one template, a class embedding is that of its caption."""
    pytest.importorskip("clip_benchmark")
    from clip_benchmark.metrics import zeroshot_retrieval

    kept = evaluated(model, folder, TEMPLATES[:1]).answers
    captions = [[TEMPLATES[0].format(c=name)] for name in data.classes]
    pixels = torch.stack([picture for picture, _ in data])
    batches = [(pixels[i : i + 20], captions[i : i + 20]) for i in range(0, COUNT, 20)]
    found = zeroshot_retrieval.evaluate(model, batches, model.tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
    for k in (1, 5, 10):
        own = recall_both_ways(kept.images, kept.classes[kept.labels], k)
        theirs = found[f"image_retrieval_recall@{k}"], found[f"text_retrieval_recall@{k}"]
        assert theirs == pytest.approx(own, abs=1e-6)
        assert k > 1 or 0.2 < min(own) <= max(own) < 1  # something could differ


def test_open_clips_zero_shot_classifier_is_that_of_clipq_eval(model, folder, data):
    import open_clip

    templates = [template.replace("{c}", "{}") for template in TEMPLATES]
    build = open_clip.build_zero_shot_classifier
    classes = build(model, model.tokenizer, data.classes, templates, num_classes_per_batch=16)
    torch.testing.assert_close(classes.T, evaluated(model, folder, TEMPLATES).answers.classes, atol=1e-5, rtol=0)
