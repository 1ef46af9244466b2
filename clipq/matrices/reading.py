"""Embeddings read back, from whichever of their files or folders."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError
from ..vectors.ranges import Ranges, ranges_of
from .embeddings import Embeddings
from .files import read_file
from .folders import read_folder


def read_embeddings(path: str | os.PathLike[str]) -> Embeddings:
    """What `clipq embed` wrote: a file of `save_embeddings`, or a folder of shards as one matrix (`read_shards` gives
    its shards one by one). Raises `DataError` naming the file if it is missing, damaged or something else.
    """
    path = Path(path)
    return read_folder(path) if path.is_dir() else read_file(path)


def read_ranges(path: str | os.PathLike[str]) -> Ranges:
    """The frozen ranges of an earlier file; of a float32 file, those of its rows. Raises `DataError`."""
    found = read_embeddings(path)
    if found.ranges is not None:
        return found.ranges
    if found.dtype != "float32":
        raise DataError(f"{path} is {found.dtype} and holds no ranges; name an int8, ubinary or float32 file.")
    return ranges_of(found.matrix, found.about, f"the embeddings of {Path(path).name}")
