"""From what a user names as data to images: folders, tars, tables, lists and patterns of them."""

from __future__ import annotations

import pytest
from evaluation_helpers import colour_task
from picture_helpers import COLOURS, colour_folder, colour_tar, encoded, picture, write_table, write_tar

from clipq.errors import DataError
from clipq.evaluation.data import task_images
from clipq.evaluation.tasks import HubSource, Task, load_task
from clipq.inputs.images import decode

PNG = encoded(picture((200, 0, 0), 1))


def a_task(**changes) -> Task:
    fields = {"name": "t", "version": 1, "title": "t", "kind": "class-folder", "templates": ("a {c}",)}
    return Task(**{**fields, "classnames": tuple(COLOURS), **changes})


def test_the_drawings_ship_with_one_picture_of_every_class():
    images = task_images(load_task("drawings"))
    assert sorted(entry.label for entry in images.entries) == list(range(len(images.classes)))
    assert decode(images.entries[-1]).mode == "RGB"


def test_class_folders_tars_and_parquet_hold_the_same_images(tmp_path):
    task = load_task(colour_task(tmp_path))
    folder = task_images(task, colour_folder(tmp_path / "folder"))
    tar = task_images(task, colour_tar(tmp_path / "tars" / "a.tar"))
    table = task_images(task, write_table(tmp_path / "table" / "test.parquet", folder))
    expected = sorted((entry.label, decode(entry).tobytes()) for entry in folder.entries)
    assert len(expected) == 12
    for other in (tar, table, task_images(task, tmp_path / "tars"), task_images(task, tmp_path / "table")):
        assert sorted((entry.label, decode(entry).tobytes()) for entry in other.entries) == expected
    assert {entry.key for entry in tar.entries} >= {"a.tar/0_0.png", "a.tar/3_2.png"}
    assert (folder.layout, tar.layout, table.layout) == ("class folders", "webdataset", "parquet")


def test_a_task_names_the_columns_of_its_tables(tmp_path):
    images = task_images(a_task(), colour_folder(tmp_path / "folder"))
    path = write_table(tmp_path / "table" / "test.parquet", images)
    with pytest.raises(DataError, match="unknown column 'img'.*image"):
        task_images(a_task(hub=HubSource("a/b", "main", "x/*.parquet", image="img")), path)


def test_without_class_names_only_a_folder_of_class_folders_will_do(tmp_path):
    assert task_images(load_task("folder"), colour_folder(tmp_path / "a")).classes == tuple(
        name.replace("_", " ") for name in sorted(COLOURS)
    )
    with pytest.raises(DataError, match="takes its classes from folder names"):
        task_images(load_task("folder"), colour_tar(tmp_path / "a.tar"))


def test_a_folder_of_training_files_is_refused(tmp_path):
    write_tar(tmp_path / "train-0.tar", [])
    with pytest.raises(DataError, match="training files") as error:
        task_images(a_task(), tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_subset_of_wnid_folders_keeps_all_thousand_classes(tmp_path):
    for wnid in ("n02110063", "n01440764"):
        (tmp_path / wnid).mkdir()
        (tmp_path / wnid / "a.png").write_bytes(PNG)
    images = task_images(load_task("imagenet1k"), tmp_path)
    assert [(e.key, e.label) for e in images.entries] == [("n01440764/a.png", 0), ("n02110063/a.png", 249)]
    assert len(images.classes) == 1000 and images.classes[249] == "Alaskan Malamute"
    (tmp_path / "n0211006").mkdir()
    with pytest.raises(DataError, match="unknown class folder 'n0211006'. Did you mean 'n0211.*named by wnid"):
        task_images(load_task("imagenet1k"), tmp_path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("nowhere", "does not exist"),
        ("nowhere-*.tar", "does not exist"),
        (["nowhere.tar"], "is not a file"),
        (None, "ships no data"),
        ("x.zip", "all .tar, or all .parquet"),
    ],
)
def test_data_that_is_not_there_says_so(tmp_path, monkeypatch, data, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"x")
    with pytest.raises(DataError, match=says):
        task_images(a_task(), data)


def test_lists_and_patterns_of_tars(tmp_path):
    first, second = colour_tar(tmp_path / "s-0.tar"), colour_tar(tmp_path / "s-1.tar", per_class=1)
    whole = task_images(a_task(), [first, second])
    assert len(whole) == 16 and len({entry.key for entry in whole.entries}) == 16
    assert task_images(a_task(), str(tmp_path / "s-*.tar")).digest() == whole.digest()
    assert task_images(a_task(), first).digest() != whole.digest()
