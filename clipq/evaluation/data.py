"""From a task and what the user names as `data` to the list of images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from ..inputs.archives import tar_images
from ..inputs.folders import class_folders
from ..inputs.images import Images
from ..inputs.tables import table_images
from ..resources import resource
from . import prompts
from .tasks import HubSource, Task, list_tasks, load_task

_WNID = r"n\d{8}"
Data = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def task_images(task: Task, data: Data | None = None) -> Images:
    """The labelled images of `task`.

    data: a folder of class folders, a folder of tars or of parquet files, one tar or parquet file, a list of them,
    or a pattern such as `"val-*.tar"`. `None` takes what ships with clipq, else the hub.
    Raises `DataError`, naming the path, if that is missing, empty or laid out otherwise.
    """
    if data is None:
        data = _own(task)
    if isinstance(data, HubSource):
        return _from_hub(task, data)
    if not isinstance(data, (str, os.PathLike)):
        return _from_files(task, [Path(one) for one in data], f"{len(data)} files")
    return _from_path(task, Path(data))


def _own(task: Task) -> Path | HubSource:
    if task.path is not None:
        return resource(*task.path.split("/"))
    if task.hub is not None:
        return task.hub
    raise DataError(f"the task {task.name!r} ships no data; name yours with data=FOLDER")


def _from_hub(task: Task, source: HubSource) -> Images:
    folder = _download(source)
    files = sorted(folder.glob(source.files))
    if not files:
        raise DataError(
            f"{source.repo} at {source.revision} has no files {source.files!r}; give local data with data=FOLDER"
        )
    images = _from_files(task, files, f"{source.repo} on the hub")
    return replace(images, layout=f"hub: {source.repo} at {folder.name}")  # a snapshot's folder is named by its commit


def _from_path(task: Task, path: Path) -> Images:
    if path.is_dir():
        files = _shards(path, task.hub)
        return _from_files(task, files, str(path)) if files else _from_folders(task, path)
    if path.is_file():
        return _from_files(task, [path], str(path))
    if files := sorted(Path(one) for one in glob.glob(str(path))):  # noqa: PTH207 (a pattern may be absolute)
        return _from_files(task, files, str(path))
    raise DataError(f"{path} does not exist; give a folder, a .tar or a .parquet file, or a pattern that fits some")


def _shards(folder: Path, hub: HubSource | None) -> list[Path]:
    """The tars or parquet files of a folder; of a downloaded hub repository only those of the task's split."""
    if hub is not None and (split := sorted(folder.glob(hub.files))):
        return split
    files = sorted(folder.glob("*.tar")) or sorted(folder.glob("*.parquet"))
    if any("train" in file.name for file in files):
        raise DataError(f"{folder} holds training files; name the others by a pattern, such as 'FOLDER/*val*'")
    return files


def _from_folders(task: Task, folder: Path) -> Images:
    names, wnids = prompts.classnames(task), prompts.wnids(task)
    if wnids and len(wnids) != len(names):
        raise DataError(
            f"the task {task.name!r} has {len(names)} class names and {len(wnids)} wnids, which do not pair"
        )
    images = class_folders(folder, names, wnids)
    if not names and all(re.fullmatch(_WNID, name) for name in images.classes):
        known = ", ".join(name for name in list_tasks() if load_task(name).wnids)
        raise DataError(
            f"the folders of {folder} are no class names: {images.classes[0]} and the like are WordNet ids, which mean "
            f"nothing to a model. Tasks that know what they stand for: {known}."
        )
    return images


def _from_files(task: Task, files: Sequence[Path], origin: str) -> Images:
    names = prompts.classnames(task)
    if not names:
        raise DataError(f"the task {task.name!r} takes its classes from folder names; {origin} is not a folder of them")
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is not a file; a list may hold .tar files or .parquet files")
    kinds = {file.suffix.lower() for file in files}
    if kinds == {".parquet"}:
        columns = task.hub or HubSource("", "", "")
        return table_images(files, columns.image, columns.label, names, origin)
    if kinds == {".tar"}:
        return tar_images(files, names, origin)
    raise DataError(f"{origin} has files ending in {sorted(kinds)}; allowed: all .tar, or all .parquet")


def _download(source: HubSource) -> Path:
    """The files of one split, through huggingface_hub's cache (resumed, shared between processes, offline after)."""
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                source.repo, repo_type="dataset", revision=source.revision, allow_patterns=[source.files]
            )
        )
    except (OSError, ValueError) as error:  # all of huggingface_hub's and the connection's are
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"cannot fetch {source.repo} (revision {source.revision}) from the hub: {reason}. If it is gated, accept "
            f"its terms on https://huggingface.co/datasets/{source.repo} and run `hf auth login`; or give local data "
            "with data=FOLDER"
        ) from error
