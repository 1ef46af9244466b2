"""From a path to an `Index`, whatever lies there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import ClipqError, DataError
from ..matrices.folders import MANIFEST
from . import foreign, own, search_libraries
from .index import Index
from .layouts import Layout


def _parquet(path: Path, layout: Layout) -> Index:
    found = own.of_parquet(path)
    return foreign.parquet(path, layout) if found is None else found


def _safetensors(path: Path, layout: Layout) -> Index:
    found = own.of_safetensors(path)
    return foreign.safetensors(path, layout) if found is None else found


def _npy(path: Path, layout: Layout) -> Index:
    found = own.of_npy(path) if layout.names is None else None
    return foreign.npy(path, layout) if found is None else found


_KINDS: Mapping[str, Callable[[Path, Layout], Index]] = {
    ".parquet": _parquet,
    ".safetensors": _safetensors,
    ".npy": _npy,
    ".faiss": search_libraries.faiss,
    ".index": search_libraries.faiss,
    ".usearch": search_libraries.usearch,
}
ENDINGS = tuple(_KINDS)


def open_index(path: str | os.PathLike[str], layout: Layout | None = None) -> Index:
    """The index at `path`: a file of one of `ENDINGS`, a folder of clipq's shards, or a folder of parquet files.

    Vectors are read when `Index.blocks` is called, a block at a time. Raises `DataError` naming the file if it is
    missing, damaged or nothing of that kind, `MissingPackageError` where faiss or usearch is needed.
    """
    path, layout = Path(path), layout or Layout()
    try:
        index = _folder(path, layout) if path.is_dir() else _file(path, layout)
    except ClipqError:
        raise
    except Exception as error:  # the border to a file that may hold anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(".")
        raise DataError(f"{path} holds no vectors that can be read: {reason}.") from error
    if not len(index):
        raise DataError(f"{path} holds no vectors, so there is nothing to compare with.")
    return index


def _folder(path: Path, layout: Layout) -> Index:
    if (path / MANIFEST).is_file():
        return own.of_folder(path)
    if not any(path.glob("*.parquet")):
        raise DataError(f"{path} is no folder of shards that clipq wrote, and holds no parquet files.")
    return foreign.parquet(path, layout)


def _file(path: Path, layout: Layout) -> Index:
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a matrix or an index: {', '.join(ENDINGS)}, or a folder of them.")
    if path.suffix not in _KINDS:
        raise DataError(f"cannot read {path}: the ending says what it is; known: {', '.join(ENDINGS)}.")
    return _KINDS[path.suffix](path, layout)
