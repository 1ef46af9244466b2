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
    found = _own(path, layout, own.of_parquet(path))
    return _table(path, layout) if found is None else found


def _table(path: Path, layout: Layout) -> Index:
    if layout.names is not None and layout.name_column is not None:
        raise DataError(f"{path}: the names are of a file or of a column; give one of --names and --name-column.")
    return foreign.parquet(path, layout)


def _safetensors(path: Path, layout: Layout) -> Index:
    found = _own(path, layout, own.of_safetensors(path))
    return foreign.safetensors(path, _only(path, layout, "names", "vectors")) if found is None else found


def _npy(path: Path, layout: Layout) -> Index:
    found = _own(path, layout, own.of_npy(path) if layout.names is None else None)
    return foreign.npy(path, _only(path, layout, "names")) if found is None else found


def _faiss(path: Path, layout: Layout) -> Index:
    return search_libraries.faiss(path, _only(path, layout, "names"))


def _usearch(path: Path, layout: Layout) -> Index:
    return search_libraries.usearch(path, _only(path, layout, "names"))


def _own(path: Path, layout: Layout, found: Index | None) -> Index | None:
    """What clipq wrote says everything of itself."""
    if found is not None:
        _only(path, layout)
    return found


def _only(path: Path, layout: Layout, *used: str) -> Layout:
    """Raise `DataError` for what is said of a file and has no meaning there."""
    for name in ("names", "name_column", "vectors"):
        if getattr(layout, name) is not None and name not in used:
            option = f"--{name.replace('_', '-')}"
            raise DataError(f"{path}: {option} says what such a file says itself, or does not have; leave it out.")
    return layout


_KINDS: Mapping[str, Callable[[Path, Layout], Index]] = {
    ".parquet": _parquet,
    ".safetensors": _safetensors,
    ".npy": _npy,
    ".faiss": _faiss,
    ".index": _faiss,
    ".usearch": _usearch,
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
        return _own(path, layout, own.of_folder(path))
    if not any(path.glob("*.parquet")):
        raise DataError(f"{path} is no folder of shards that clipq wrote, and holds no parquet files.")
    return _table(path, layout)


def _file(path: Path, layout: Layout) -> Index:
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a matrix or an index: {', '.join(ENDINGS)}, or a folder of them.")
    if path.suffix not in _KINDS:
        raise DataError(f"cannot read {path}: the ending says what it is; known: {', '.join(ENDINGS)}.")
    return _KINDS[path.suffix](path, layout)
