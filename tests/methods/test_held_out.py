"""What may be calibrated on: columns of datasets, no data of an evaluation; and what cannot be read is named."""

from __future__ import annotations

import io
import os

import datasets
import pytest
import torch
from PIL import Image

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.errors import DataError
from clipq.methods.calibration import MOST_PICTURES, account, inputs_for
from clipq.methods.defaults import default_pictures
from clipq.methods.held_out import refuse_held_out
from clipq.resources import resource

SCHEMES = {"image": PRECISIONS["int8-static"]}
TEXTS = {"text": PRECISIONS["int8-static"]}


@pytest.fixture(scope="module")
def model() -> clipq.Model:
    return clipq.load("clipq-tiny", "fp32")


def png(seed: int) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (40, 50, 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(file := io.BytesIO(), "png")
    return file.getvalue()


def table(count: int = 5, split: str | None = None, **columns) -> datasets.Dataset:
    rows = {"picture": [{"bytes": png(seed), "path": None} for seed in range(count)], "label": list(range(count))}
    kinds = {"picture": datasets.Image(), "label": datasets.Value("int64")}
    kinds |= {name: datasets.Features({name: kind})[name] for name, (kind, _) in columns.items()}
    rows |= {name: values for name, (_, values) in columns.items()}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds), split=split)


def whole(found, tower: str = "image") -> torch.Tensor:
    return torch.cat(list(found[tower]))


def test_a_dataset_is_the_pictures_of_its_image_column(model, tmp_path):
    expected = whole(inputs_for(model, SCHEMES, [png(seed) for seed in range(5)]))
    for seed in range(5):
        (tmp_path / f"{seed}.png").write_bytes(png(seed))
    paths = {"file": [str(tmp_path / f"{seed}.png") for seed in range(5)]}
    by_path = datasets.Dataset.from_dict(paths, features=datasets.Features({"file": datasets.Image()}))
    for form in (
        table(),
        table(split="train"),
        table().with_format("torch"),
        table().select_columns(["picture"]),
        by_path,
    ):
        assert torch.equal(whole(inputs_for(model, SCHEMES, form)), expected)
    assert torch.equal(whole(inputs_for(model, SCHEMES, {"image": table()})), expected)


def test_a_dataset_is_the_strings_of_its_text_column(model):
    texts = ["a dog", "a red bus", "two cats"]
    rows = datasets.Dataset.from_dict({"caption": texts, "id": [1, 2, 3]})
    assert torch.equal(whole(inputs_for(model, TEXTS, rows), "text"), model.tokenizer(texts))


def test_a_large_dataset_is_thinned_evenly_and_only_that_is_read(model):
    rows = table(2, name=(datasets.Value("string"), ["a", "b"]))
    many = datasets.concatenate_datasets([rows] * 200)
    assert len(whole(inputs_for(model, SCHEMES, many))) == MOST_PICTURES


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"other": (datasets.Image(), [{"bytes": png(seed), "path": None} for seed in range(5)])}, "2 columns.*select"),
        (None, "0 columns of images.*label"),
    ],
)
def test_a_dataset_without_one_image_column_says_which_there_are(model, columns, said):
    rows = table().select_columns(["label"]) if columns is None else table(**columns)
    with pytest.raises(DataError, match=said):
        inputs_for(model, SCHEMES, rows)


def test_a_streamed_dataset_is_refused_with_what_to_do(model):
    with pytest.raises(DataError, match="take"):
        inputs_for(model, SCHEMES, table().to_iterable_dataset())


@pytest.mark.parametrize("split", ["test", "validation", "test[:10%]", "train+validation", "validation[:8]"])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_held_out_split_is_refused_by_name(model, split, tower):
    rows = table(split=split)
    with pytest.raises(DataError, match="test|validation"):
        inputs_for(model, SCHEMES if tower == "image" else TEXTS, rows)


def test_training_splits_are_taken(model):
    for split in ("train", "train[:5]", "latest", None):
        assert len(whole(inputs_for(model, SCHEMES, table(split=split)))) == 5


def test_every_picture_that_cannot_be_read_is_named(model, tmp_path):
    for seed in range(4):
        (tmp_path / f"{seed}.png").write_bytes(png(seed))
    for name in ("cut.png", "text.png"):
        (tmp_path / name).write_bytes(png(9)[:60] if name == "cut.png" else b"no picture")
    for form in (tmp_path, sorted(tmp_path.iterdir())):
        with pytest.raises(DataError, match=r"(?s)2 of.*cut\.png.*text\.png"):
            inputs_for(model, SCHEMES, form)
    with pytest.raises(DataError, match="number 1.*number 3"):
        inputs_for(model, SCHEMES, [png(0), b"x", png(1), b"y"])
    broken = datasets.Dataset.from_dict(
        {"image": [{"bytes": png(0), "path": None}, {"bytes": b"x", "path": None}, None]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    with pytest.raises(DataError, match="row 1.*row 2"):
        inputs_for(model, SCHEMES, broken)


# What evaluations are measured on.


def test_what_ships_for_an_evaluation_is_refused_and_the_default_photos_are_not(model):
    shipped = resource("eval", "data")
    for path in (
        shipped,
        shipped / "drawings.parquet",
        str(shipped / "drawings.classes.txt"),
        [shipped / "drawings.parquet"],
    ):
        with pytest.raises(DataError, match="evaluations"):
            refuse_held_out(path)
    refuse_held_out(shipped / "photos.parquet")
    with pytest.raises(DataError, match="drawings"):
        inputs_for(model, TEXTS, shipped / "drawings.classes.txt")
    link = os.path.relpath(shipped / "drawings.parquet")
    with pytest.raises(DataError, match="evaluations"):
        refuse_held_out(link)


def cached(root, repo: str, *files: str):
    snapshot = root / f"datasets--{repo.replace('/', '--')}" / "snapshots" / "0b27"
    for file in files:
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / file).write_bytes(b"")
    return snapshot


def test_what_a_task_fetches_from_the_hub_is_refused_by_the_tasks_name(tmp_path):
    cifar = cached(tmp_path, "uoft-cs/cifar10", "plain_text/test-0.parquet", "plain_text/train-0.parquet")
    for path in (cifar, cifar / "plain_text", cifar / "plain_text" / "test-0.parquet", cifar.parent.parent):
        with pytest.raises(DataError, match="'cifar10'"):
            refuse_held_out(path)
    refuse_held_out(cifar / "plain_text" / "train-0.parquet")
    train = cached(tmp_path / "other", "ILSVRC/imagenet-1k", "data/train-0.parquet")
    refuse_held_out(train)
    unknown = cached(tmp_path, "somebody/pictures", "test/0.parquet")
    refuse_held_out(unknown)


@pytest.mark.parametrize("source", [None, torch.zeros(1), ["a dog"], b"bytes", 3, "a dog", "\0", [b"x", 3]])
def test_what_is_no_path_is_left_to_others(source):
    refuse_held_out(source)


def test_the_account_is_of_the_numbers_and_not_of_the_batches():
    x = torch.randn(10, 3, 4, 4)
    one = account({"image": list(x.split(4))})
    assert one == account({"image": [x]})
    assert one["image"]["count"] == 10
    assert account({"image": [x + 1]}) != one and account({"image": [x.view(10, 3, 2, 8)]}) != one
    assert account({}) == {}


def test_default_pictures_are_the_same_every_time():
    first, again = default_pictures(), default_pictures()
    assert all(one.tobytes() == other.tobytes() for one, other in zip(first, again, strict=True))
