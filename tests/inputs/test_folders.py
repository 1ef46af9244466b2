"""Images in folders: how a folder names its class, and what a wrong folder is told."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from picture_helpers import COLOURS, colour_folder, encoded, picture

from clipq.errors import ClipqWarning, DataError
from clipq.inputs.folders import class_folders, pictures

CLASSES = tuple(COLOURS)
PNG = encoded(picture((200, 0, 0), 1))


@pytest.mark.parametrize(("name", "label"), [("dark_grey", 3), ("Dark-Grey", 3), ("dark grey", 3), ("2", 2)])
def test_folders_are_named_by_class_or_by_index(tmp_path, name, label):
    (tmp_path / name / "deeper").mkdir(parents=True)
    (tmp_path / name / "deeper" / "A.PNG").write_bytes(PNG)
    (tmp_path / name / "notes.txt").write_text("not a picture")
    (tmp_path / "labels.tsv").write_text("not a folder")
    assert [(e.key, e.label) for e in class_folders(tmp_path, CLASSES).entries] == [(f"{name}/deeper/A.PNG", label)]


def test_without_class_names_the_folders_are_the_classes(tmp_path):
    images = class_folders(colour_folder(tmp_path), ())
    assert images.classes == ("blue", "dark grey", "green", "red")
    assert Counter(entry.label for entry in images.entries) == {0: 3, 1: 3, 2: 3, 3: 3}


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        ({}, "no class folders"),
        ({"red": {}}, "red holds no pictures"),
        ({"red": {"a.txt": b"x"}}, "red holds no pictures"),
        ({"purpel": {"a.png": PNG}}, "unknown class folder 'purpel'"),
        ({"4": {"a.png": PNG}}, "'4'.*from 0 to 3"),
        ({"-1": {"a.png": PNG}}, "unknown class folder '-1'"),
    ],
)
def test_a_wrong_folder_says_what_is_wrong(tmp_path, folders, says):
    for name, files in folders.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        class_folders(tmp_path, CLASSES)
    assert str(tmp_path) in str(error.value)


def test_pictures_of_any_folder(tmp_path):
    colour_folder(tmp_path / "a", per_class=1)
    (tmp_path / "b.jpg").write_bytes(encoded(picture((1, 2, 3), 4), "JPEG"))
    assert [entry.key for entry in pictures(tmp_path).entries][-1] == "b.jpg" and len(pictures(tmp_path)) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        pictures(tmp_path / "empty")
    with pytest.raises(DataError, match="not a folder"):
        pictures(tmp_path / "b.jpg")


def test_what_is_no_file_is_listed_and_cannot_be_read(tmp_path):
    (tmp_path / "good.png").write_bytes(PNG)
    (tmp_path / "a.png").symlink_to("nowhere.png")
    (tmp_path / "b.png").symlink_to("b.png")
    (tmp_path / "c.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "d.png")
    (tmp_path / "deeper").symlink_to(tmp_path)
    *strange, good = pictures(tmp_path).entries
    assert [entry.key for entry in strange] == ["a.png", "b.png", "c.png", "d.png"] and good.read() == PNG
    for entry, reason in zip(strange, ("does not exist", "a loop of links", "a device", "a fifo"), strict=True):
        with pytest.raises(OSError, match=reason):
            entry.read()


def test_a_folder_that_cannot_be_listed_is_said(tmp_path):
    (tmp_path / "good.png").write_bytes(PNG)
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(18):  # a path of more than 4096 bytes, which even root cannot list
        os.mkdir("x" * 250, dir_fd=at)  # noqa: PTH102
        deeper = os.open("x" * 250, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(at)
    with pytest.warns(ClipqWarning, match="cannot be read .*what is in it is left out"):
        assert [entry.key for entry in pictures(tmp_path).entries] == ["good.png"]


@pytest.mark.parametrize(("name", "says"), [("none", "does not exist"), ("f", "not a folder"), ("l", "cannot be read")])
def test_what_is_no_folder(tmp_path, name, says):
    (tmp_path / "f").write_bytes(PNG)
    (tmp_path / "l").symlink_to("l")
    with pytest.raises(DataError, match=says):
        pictures(tmp_path / name)
