"""Tasks as data: those that ship, and what a wrong task file is told."""

from __future__ import annotations

import pytest

from clipq.errors import DataError, UnknownNameError
from clipq.evaluation import prompts
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
    ],
)
def test_a_wrong_task_file_says_what_is_wrong(tmp_path, text, says):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises((DataError, UnknownNameError)) as error:
        load_task(path)
    assert says in str(error.value) and str(path) in str(error.value)
