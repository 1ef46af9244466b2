"""The photos that ship: each decodes, is small, has one honest label and a licence that allows shipping it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from pyarrow import parquet

import clipq
from clipq.evaluation import prompts
from clipq.evaluation.data import task_images
from clipq.evaluation.tasks import load_task

DATA = Path(__file__).resolve().parents[2] / "eval" / "data"
ALLOWED = {"public domain", "CC0-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0"}
ROWS = parquet.read_table(DATA / "photos.parquet").to_pylist()
CARD = [
    [re.sub(r"\[([^\]]*)\]\(.*\)", r"\1", cell.strip()) for cell in line.strip("|\n").split(" | ")]
    for line in (DATA / "photos.md").read_text(encoding="utf-8").splitlines()
    if line.split(" ")[1:2] and line.split(" ")[1].endswith(".jpg")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["image"]["path"])
def test_a_photo_is_small_rgb_and_carries_no_metadata(row):
    data = row["image"]["bytes"]
    assert len(data) <= 40_000
    image = Image.open(io.BytesIO(data))
    image.load()
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert 180 <= min(image.size) <= 256
    assert max(image.size) <= 1.51 * min(image.size)
    assert not image.getexif() and not {"icc_profile", "comment", "photoshop"} & set(image.info)


def test_the_file_is_small_and_no_photo_or_class_comes_twice():
    assert len(ROWS) >= 16 and (DATA / "photos.parquet").stat().st_size <= 1_200_000
    assert len({row["image"]["bytes"] for row in ROWS}) == len({row["label"] for row in ROWS}) == len(ROWS)
    assert len({row["image"]["path"] for row in ROWS}) == len(ROWS)


def test_the_card_names_every_photo_with_its_class_author_and_an_allowed_licence():
    names = prompts.classnames(load_task("photos"))
    expected = [(row["image"]["path"], names[row["label"]], str(row["label"])) for row in ROWS]
    assert [tuple(cells[:3]) for cells in CARD] == expected
    for cells in CARD:
        assert len(cells) == 8 and all(cells), cells
        assert cells[4] in ALLOWED, cells
        assert cells[4] == "public domain" or cells[3] != "not named", "CC-BY and CC0 name an author"


def test_the_task_reads_the_photos_with_their_labels():
    task = load_task("photos")
    images = task_images(task)
    assert [entry.label for entry in images.entries] == [row["label"] for row in ROWS]
    assert len(prompts.classnames(task)) == 1000 and len(prompts.templates(task)) == 7
    assert "demonstration" in task.title and "not a benchmark" in task.title and str(len(ROWS)) in task.title


def test_the_embedded_model_answers_the_task():
    task = replace(load_task("photos"), templates=("{c}",))  # a seventh of the prompts
    result = clipq.evaluate(clipq.load("clipq-tiny"), task, limit=4)
    assert (result.n, result.n_classes, result.broken["count"]) == (4, 1000, 0)
