"""Embeddings read back, from whichever of their files or folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..vectors.ranges import Ranges, ranges_of
from .embeddings import Embeddings
from .files import about_file, read_file
from .folders import read_folder, read_manifest


def read_embeddings(path: str | os.PathLike[str]) -> Embeddings:
    """What `clipq embed` wrote: a file of `save_embeddings`, or a folder of shards as one matrix (`read_shards` gives
    its shards one by one). Raises `DataError` naming the file if it is missing, damaged or something else.
    """
    path = Path(path)
    return read_folder(path) if path.is_dir() else read_file(path)


def read_about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What an output says of its model and its vectors, without its rows; no torch. Raises `DataError`."""
    path = Path(path)
    if path.is_dir():
        return read_manifest(path)
    found = about_file(path)
    return {key: value for key, value in found.items() if key not in ("names", "broken", "format", "tensors")}


def read_ranges(path: str | os.PathLike[str]) -> Ranges:
    """The frozen ranges of an earlier file; of a float32 file, those of its rows. Raises `DataError`."""
    found = read_embeddings(path)
    if found.ranges is not None:
        return found.ranges
    if found.dtype != "float32":
        raise DataError(f"{path} is {found.dtype} and holds no ranges; name an int8, ubinary or float32 file.")
    return ranges_of(found.matrix, found.about, f"the embeddings of {Path(path).name}")
