"""faiss and usearch indexes that give their vectors back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, MissingPackageError, first_line
from .index import ROWS, Index
from .names import names_of

if TYPE_CHECKING:
    from torch import Tensor

    from .layouts import Layout

_EXACT = ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexHNSWFlat", "IndexIVFFlat", "IndexNSGFlat")
_FLOATS = ("f32", "f64", "f16", "bf16")


def faiss(path: Path, layout: Layout) -> Index:
    """Any index whose `reconstruct_n` works: flat, HNSW, IVF, quantizers (these give near vectors), behind ids too."""
    library = _package("faiss", "a faiss index", "faiss-cpu")
    try:
        index = library.read_index(str(path))
    except RuntimeError as error:
        raise DataError(f"{path} is no faiss index that can be read: {first_line(error)[:200]}.") from error
    ids, inner = _numbered(library, index)
    kind = type(library.downcast_index(inner)).__name__
    names = names_of(path, layout, ids)
    read = _reconstructed(library, (index, inner), path)
    return Index(path, f"faiss {kind}", names, inner.d, read, {}, kind in _EXACT)


def _numbered(library: Any, index: Any) -> tuple[Any, Any]:
    """The numbers that an index calls its vectors by, in the order that it keeps them, and the index that has them."""
    index = library.downcast_index(index)
    if not isinstance(index, library.IndexIDMap):
        return range(index.ntotal), index
    return library.vector_to_array(index.id_map).tolist(), library.downcast_index(index.index)


def _reconstructed(library: Any, indexes: tuple[Any, Any], path: Path) -> Callable[[], Iterator[Tensor]]:
    """indexes: the whole one, which owns the other, and the one inside it that has the vectors."""
    import torch

    _, index = indexes
    try:
        inverted = library.try_extract_index_ivf(index)
        if inverted is not None:
            inverted.make_direct_map()
        if index.ntotal:
            index.reconstruct_n(0, 1)
    except RuntimeError as error:
        raise DataError(
            f"{path}: this faiss index does not give its vectors back: {first_line(error)[:200]}."
        ) from error

    def read() -> Iterator[Tensor]:
        index = indexes[1]  # both stay as long as this function does
        for start in range(0, index.ntotal, ROWS):
            yield torch.from_numpy(index.reconstruct_n(start, min(ROWS, index.ntotal - start)))

    return read


def usearch(path: Path, layout: Layout) -> Index:
    """A usearch index of floats or int8 codes, mapped; its keys are the numbers of the names."""
    import numpy
    import torch

    library = _package("usearch.index", "a usearch index", "usearch")
    try:
        index = library.Index.restore(str(path), view=True)
    except Exception as error:  # the border to a library that raises what it likes for a damaged file
        raise DataError(f"{path} is no usearch index that can be read: {first_line(error)[:200]}.") from error
    if index is None:
        raise DataError(f"{path} is no usearch index that can be read; index.save(path) of usearch writes one.")
    kind = str(index.dtype).rpartition(".")[2].lower()
    if kind not in (*_FLOATS, "i8"):
        raise DataError(f"{path} holds {kind} vectors, which give no floats back; name the float index or its matrix.")
    keys = numpy.sort(numpy.asarray(index.keys[:] if len(index) else [], dtype=numpy.uint64))

    def read() -> Iterator[Tensor]:
        for start in range(0, len(keys), ROWS):
            found = numpy.asarray(index.get(keys[start : start + ROWS]))
            yield torch.from_numpy(found.astype(numpy.float32))

    names = names_of(path, layout, keys.tolist())
    return Index(path, f"usearch index of {kind}", names, index.ndim, read, {}, kind in _FLOATS)


def _package(name: str, what: str, distribution: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"{what} needs the package {distribution} ({error}); install it with: pip install 'clipq[clients]'"
        ) from error
