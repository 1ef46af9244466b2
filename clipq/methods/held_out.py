"""What evaluations measure on is not calibrated on: a result would be of data that the model has seen."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..inputs.datasets import is_dataset
from ..resources import resource

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SPLITS = ("test", "validation", "valid", "val")
_NEVER_MEASURED = "photos.parquet"  # a demonstration: what is calibrated on where nothing is given


def refuse_held_out(source: Any) -> None:
    """Raise `DataError`, naming the task or the split, for what can be told to be data of an evaluation.

    That is what ships for a task of `clipq eval`, what such a task fetches from the hub, and a dataset whose split is
    called "test" or "validation". What else a folder holds only its owner knows.
    """
    if is_dataset(source):
        _refuse_split(str(getattr(source, "split", None)))
    for path in _paths(source):
        if reason := _of_a_task(path):
            raise DataError(
                f"{path} is {reason}, and evaluations must not be of data that was calibrated on; {_INSTEAD}"
            )


_INSTEAD = "give other data (a hundred pictures or texts of the kind that will be embedded), such as of a train split."


def _refuse_split(split: str) -> None:
    for part in split.split("+"):
        name = re.split(r"[\[(]", part)[0].strip()
        if name in _SPLITS:
            raise DataError(f"the dataset is the {name!r} split, which evaluations are measured on; {_INSTEAD}")


def _paths(source: Any) -> Iterator[Path]:
    several = source if isinstance(source, Sequence) and not isinstance(source, (str, bytes)) else [source]
    for one in several:
        if isinstance(one, (str, os.PathLike)):
            try:
                yield Path(one).resolve()
            except (OSError, ValueError):  # no path, and refused as such by whoever reads it
                continue


def _of_a_task(path: Path) -> str:
    """What evaluation data `path` is; "" if it is none that can be told."""
    shipped = resource("eval", "data").resolve()
    if path.is_relative_to(shipped) and path.name != _NEVER_MEASURED:
        return "data of the evaluations that ship with clipq"
    for name, repo, files in _hub_tasks():
        folder = f"datasets--{repo.replace('/', '--')}"  # as huggingface_hub calls it in its cache
        if folder in path.parts and _is_of_split(path, path.parts[path.parts.index(folder) + 1 :], files):
            return f"what the task {name!r} is measured on"
    return ""


def _is_of_split(path: Path, inside: Sequence[str], files: str) -> bool:
    """Whether a path within a repository's cache, snapshots/<commit>/..., is one of `files`, or holds some of them."""
    within = "/".join(inside[2:]) if inside[:1] == ("snapshots",) else ""
    return fnmatchcase(within, files) or (
        path.is_dir() and next(path.rglob(files.rpartition("/")[2]), None) is not None
    )


def _hub_tasks() -> Iterator[tuple[str, str, str]]:
    """Name, repository and files of the tasks whose data lies on the hub."""
    for path in sorted(resource("eval", "tasks").glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if hub := table["dataset"].get("hub"):
            yield table["name"], hub["repo"], hub["files"]
