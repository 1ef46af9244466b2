"""Code written for open_clip's CLIP takes a `Model` unchanged: open_clip's zero-shot, CLIP_benchmark, linear probes."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch.utils.data import DataLoader

import clipq

LABELS = [f"animal {letter}" for letter in "abcdef"]
TEMPLATES = ["a photo of a {}", "a drawing of a {}"]


@pytest.fixture(scope="module")
def model() -> clipq.Model:
    return clipq.load("clipq-tiny")


@pytest.fixture(scope="module")
def pixels(model, drawings) -> torch.Tensor:
    return torch.stack([model.preprocess(picture) for picture in drawings[:6]])


class Labelled(torch.utils.data.TensorDataset):
    classes = LABELS


@pytest.fixture(scope="module")
def loader(pixels) -> DataLoader:
    return DataLoader(Labelled(pixels, torch.arange(len(pixels))), batch_size=4)


def accuracy(logits: torch.Tensor, labels: torch.Tensor, topk: tuple[int, ...] = (1,)) -> list[float]:
    """What both libraries count with `float(array of one number)`, which numpy 2.4 refuses."""
    hits = logits.topk(max(topk), dim=1).indices == labels[:, None]
    return [float(hits[:, :k].sum()) for k in topk]


def own_answers(model: clipq.Model, pixels: torch.Tensor) -> list[int]:
    return model.classify(pixels, LABELS, TEMPLATES).argmax(dim=-1).tolist()


def test_open_clips_zero_shot(model, pixels, loader, monkeypatch):
    import open_clip
    from open_clip_train import zero_shot

    classifier = open_clip.build_zero_shot_classifier(model, model.tokenizer, LABELS, TEMPLATES)
    legacy = open_clip.build_zero_shot_classifier_legacy(model, model.tokenizer, LABELS, TEMPLATES)
    assert torch.allclose(classifier, legacy, atol=1e-5)
    answers = (model.encode_image(pixels, normalize=True) @ classifier).argmax(dim=-1).tolist()
    assert answers == own_answers(model, pixels)
    arguments = argparse.Namespace(device="cpu", precision="fp32", batch_size=4)
    monkeypatch.setattr(zero_shot, "accuracy", accuracy)
    top1, top5 = zero_shot.run(model, classifier, loader, arguments)
    assert top1 == sum(answer == row for row, answer in enumerate(answers)) / len(answers)
    assert top1 <= top5 <= 1


def test_a_linear_probe_trains_on_embeddings(model, pixels):
    embeddings, wanted = model.encode_image(pixels), torch.arange(len(pixels))
    embeddings /= embeddings.norm(dim=-1, keepdim=True)  # in place, as much code does
    probe = torch.nn.Linear(embeddings.shape[1], len(pixels))
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(probe(embeddings), wanted).backward()
        optimizer.step()
    assert probe(embeddings).argmax(dim=-1).tolist() == wanted.tolist()


@pytest.mark.clients
@pytest.mark.filterwarnings("default")  # of other people's packages
@pytest.mark.parametrize("amp", [False, True])
def test_clip_benchmark_classifies(model, pixels, loader, amp, monkeypatch):
    pytest.importorskip("clip_benchmark")
    from clip_benchmark.metrics import zeroshot_classification

    shares = lambda *given, **topk: [hits / len(given[1]) for hits in accuracy(*given, **topk)]  # noqa: E731
    monkeypatch.setattr(zeroshot_classification, "accuracy", shares)
    templates = [template.replace("{}", "{c}") for template in TEMPLATES]
    found = zeroshot_classification.evaluate(
        model.to("cpu").eval(), loader, model.tokenizer, LABELS, templates, device="cpu", amp=amp
    )
    answers = own_answers(model, pixels)
    right = sum(answer == row for row, answer in enumerate(answers)) / len(answers)
    assert found["acc1"] == pytest.approx(right, abs=1 / 6 if amp else 1e-9)  # bf16 may tip one of six
    assert 0 <= found["acc1"] <= found["acc5"] <= 1


@pytest.mark.clients
@pytest.mark.filterwarnings("default")
def test_clip_benchmark_retrieves(model, pixels):
    pytest.importorskip("clip_benchmark")
    from clip_benchmark.metrics import zeroshot_retrieval

    texts = [[f"a drawing of an {label}", label] for label in LABELS]
    batches = [(pixels[:3], texts[:3]), (pixels[3:], texts[3:])]
    found = zeroshot_retrieval.evaluate(model, batches, model.tokenizer, "cpu", amp=False, recall_k_list=[1, 6])
    encoded = model.encode_text([text for some in texts for text in some], normalize=True)
    nearest = (encoded @ model.encode_image(pixels, normalize=True).T).argmax(dim=-1)
    right = (nearest == torch.arange(len(pixels)).repeat_interleave(2)).float().mean().item()
    assert found["image_retrieval_recall@1"] == pytest.approx(right)
    assert found["image_retrieval_recall@6"] == 1  # among all of them
