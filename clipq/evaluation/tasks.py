"""Evaluation tasks as data: `eval/tasks/*.toml`, read and checked here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError, unknown_name
from ..inputs.images import unlike_a_file
from ..resources import resource

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS = ("parquet", "webdataset", "wnid-folder", "class-folder", "hub")
_HUB_KEYS = ("repo", "revision", "files", "image", "label")


@dataclass(frozen=True)
class HubSource:
    """Where a data set lies on the Hugging Face hub: the files of one split, parquet or webdataset tars."""

    repo: str
    revision: str
    files: str  # a glob inside the repository, so that nothing but this split is downloaded
    image: str = "image"  # parquet columns
    label: str = "label"


@dataclass(frozen=True)
class Task:
    """One evaluation: which images, which classes, which prompts. Two results compare only if name and version agree.

    classnames and templates are lists, or a reference such as `"open_clip:IMAGENET_CLASSNAMES"`. Empty class names
    mean that the folder names of the data are the classes.
    """

    name: str
    version: int
    title: str
    kind: str
    templates: tuple[str, ...] | str
    classnames: tuple[str, ...] | str = ()
    path: str | None = None  # data that ships with clipq
    wnids: str | None = None  # reference to the WordNet ids in class order
    hub: HubSource | None = None
    about: Mapping[str, str] = field(default_factory=dict)  # source, licence, attribution


def list_tasks() -> list[str]:
    """The names of the tasks that ship with clipq."""
    return sorted(path.stem for path in resource("eval", "tasks").glob("*.toml"))


def load_task(task: str | os.PathLike[str] | Task) -> Task:
    """A `Task` from its name, or from a `.toml` file of your own.

    Raises `UnknownNameError` for a name that is not one of `list_tasks()`, `DataError` for a file that is wrong.
    """
    if isinstance(task, Task):
        return task
    if str(task).endswith(".toml"):
        return _read(Path(task))
    if str(task) not in (known := list_tasks()):
        raise unknown_name("task", str(task), known, "Or give a .toml file of your own (eval/README.md says how).")
    return _read(resource("eval", "tasks", f"{task}.toml"))


def _read(path: Path) -> Task:
    if path.exists() and (reason := unlike_a_file(path)):
        raise DataError(f"cannot read the task file {path}: {reason}")
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError, RecursionError) as error:  # a TOMLDecodeError and a UnicodeDecodeError are ValueErrors
        raise DataError(f"cannot read the task file {path}: {error}") from error
    return _task(table, path)


def _task(table: Mapping, path: Path) -> Task:
    data, prompts = _need(table, "dataset", dict, path), _need(table, "prompts", dict, path)
    kind = _need(data, "kind", str, path)
    if kind not in KINDS:
        raise unknown_name("dataset kind", kind, KINDS, f"It is in {path}.")
    if table.get("metric", "top1") != "top1":
        raise unknown_name("metric", table["metric"], ["top1"], f"It is in {path}.")
    for texts, keys in ((table, ("title",)), (data, ("path", "wnids", "source", "licence", "attribution"))):
        for key in set(keys) & set(texts):
            _need(texts, key, str, path)
    return Task(
        name=_need(table, "name", str, path),
        version=_need(table, "version", int, path),
        title=table.get("title", table["name"]),
        kind=kind,
        templates=_templates(prompts, path),
        classnames=_classnames(prompts, path),
        path=data.get("path"),
        wnids=data.get("wnids"),
        hub=_hub(data, path),
        about={key: data[key] for key in ("source", "licence", "attribution") if key in data},
    )


def _need(table: Mapping, key: str, kind: type, path: Path):
    value = table.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):  # a bool is an int, and no version
        raise DataError(f"the task file {path} needs {key!r} as a {kind.__name__}, and has {value!r}")
    return value


def _hub(data: Mapping, path: Path) -> HubSource | None:
    if "hub" not in data:
        return None
    table = _need(data, "hub", dict, path)
    if unknown := sorted(set(table) - set(_HUB_KEYS)):
        raise unknown_name("key of [dataset.hub]", unknown[0], _HUB_KEYS, f"It is in {path}.")
    for key in {"repo", "revision", "files", *table}:
        _need(table, key, str, path)
    return HubSource(**table)


def _templates(prompts: Mapping, path: Path) -> tuple[str, ...] | str:
    value = prompts.get("templates")
    if isinstance(value, str):
        return value
    if not _strings(value) or any("{c}" not in template for template in value):
        raise DataError(f"'templates' in {path} must be strings that each hold {{c}}, the class; it is {value!r}")
    return tuple(value)


def _classnames(prompts: Mapping, path: Path) -> tuple[str, ...] | str:
    if "classnames_file" in prompts:
        return _lines(_beside(_need(prompts, "classnames_file", str, path), path))
    value = prompts.get("classnames", [])
    if isinstance(value, str):
        return value
    if value and not _strings(value):
        raise DataError(f"'classnames' in {path} must be a list of strings; it is {value!r}")
    return tuple(value)


def _strings(value: object) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(one, str) and one for one in value)


def _beside(name: str, path: Path) -> Path:
    """A file named in a task: beside the task file, else among clipq's own data."""
    beside = path.parent / name
    return beside if beside.exists() else resource(*name.split("/"))


def _lines(path: Path) -> tuple[str, ...]:
    if reason := unlike_a_file(path):
        raise DataError(f"cannot read the class names {path}: {reason}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the class names {path}: {error}") from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(set(lines)) != len(lines):
        twice = next(line for line in lines if lines.count(line) > 1)
        raise DataError(f"the class {twice!r} stands twice in {path}; every line must be another class")
    return lines
