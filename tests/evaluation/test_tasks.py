"""Tasks as data: those that ship, and what a wrong task file is told."""

from __future__ import annotations

import pytest

from clipq.errors import DataError, UnknownNameError
from clipq.evaluation import prompts
from clipq.evaluation.data import task_images
from clipq.evaluation.tasks import list_tasks, load_task


@pytest.mark.parametrize("name", ["imagenet1k", "imagenetv2", "cifar10", "cifar100", "drawings", "folder"])
def test_every_task_that_ships_is_complete(name):
    assert name in list_tasks()
    task = load_task(name)
    names, templates = prompts.classnames(task), prompts.templates(task)
    expected = {"imagenet1k": (1000, 80), "imagenetv2": (1000, 80), "cifar10": (10, 18), "cifar100": (100, 18)}
    expected["drawings"] = (1901, 7)
    assert (len(names), len(set(templates))) == expected.get(name, (0, 7))
    assert all("dog" in template("dog") for template in templates)
    assert name == "folder" or (task.path or task.hub.repo) and task.about["licence"] and task.about["attribution"]


def test_wordnet_ids_are_in_the_order_of_open_clips_class_names():
    task = load_task("imagenet1k")
    ids, names = prompts.wnids(task), prompts.classnames(task)
    assert ids == tuple(sorted(set(ids))) and len(ids) == len(names)
    known = {"n01440764": "tench", "n02110063": "Alaskan Malamute", "n03782006": "monitor", "n15075141": "toilet paper"}
    for wnid, name in known.items():
        assert names[ids.index(wnid)] == name


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'imagenet1k'"):
        load_task("imagenet-1k")


GOOD = """
name = "x"
version = 1
[dataset]
kind = "class-folder"
[prompts]
templates = ["{c}"]
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 3", "dataset"),
        ("[dataset]\nkind = 'zip'\n[prompts]\n", "webdataset"),
        ("name = 'x'\nversion = '1'\n[dataset]\nkind = 'hub'\n[prompts]\n", "version"),
        ("name = 'x'\nversion = 1\n[dataset]\nkind = 'hub'\n[prompts]\ntemplates = ['a photo']\n", "{c}"),
        ("name = 'x'\nversion = 1\nmetric = 'f1'\n[dataset]\nkind = 'hub'\n[prompts]\n", "top1"),
        ("name = 'x'\nversion = 1\n[dataset]\nkind = 'hub'\nhub = {split=1}\n[prompts]\ntemplates = ['{c}']", "split"),
        ("name = [", "task file"),
        ("name = " + "[" * 5000, "task file"),
        (GOOD.replace("version = 1", "version = true"), "'version' as a int, and has True"),
        (GOOD.replace("[prompts]", "path = 5\n[prompts]"), "'path' as a str"),
        (GOOD.replace("[prompts]", "wnids = ['x']\n[prompts]"), "'wnids' as a str"),
        (GOOD.replace("[dataset]", "title = 1\n[dataset]"), "'title' as a str"),
        (GOOD.replace("[prompts]", "[dataset.hub]\nrepo='a'\nrevision='b'\nfiles='c'\nlabel=1\n[prompts]"), "'label'"),
        (GOOD + "classnames_file = 5", "'classnames_file' as a str"),
    ],
)
def test_a_wrong_task_file_says_what_is_wrong(tmp_path, text, says):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises((DataError, UnknownNameError)) as error:
        load_task(path)
    assert says in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_files_that_are_no_text_or_no_files(tmp_path, content):
    for name, text in (("x.toml", None), ("y.toml", GOOD + "classnames_file = 'names.txt'")):
        path = tmp_path / (name if text is None else "names.txt")
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/zero") if content is None else path.write_bytes(content)
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match="cannot read the (task file|class names) .*(utf-8|a device)"):
            load_task(tmp_path / name)


def test_wnids_without_their_class_names(tmp_path):
    (tmp_path / "x.toml").write_text(GOOD.replace("[prompts]", "wnids = 'timm:imagenet-1k'\n[prompts]"))
    (tmp_path / "n01440764").mkdir()
    with pytest.raises(DataError, match="has 0 class names and 1000 wnids"):
        task_images(load_task(tmp_path / "x.toml"), tmp_path)
