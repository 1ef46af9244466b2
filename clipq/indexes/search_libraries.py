"""faiss and usearch indexes that give their vectors back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
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
_FAISS_METRICS = {0: "inner product", 1: "L2"}
_USEARCH_METRICS = {"ip": "inner product", "l2sq": "L2", "cos": None}
_UNEVEN = {"bf16": 1e-2, "i8": 0.5}  # how far from one length rounding takes vectors; codes of one length have several
_UNEVEN_CODES = 0.5


def faiss(path: Path, layout: Layout) -> Index:
    """Any index whose vectors come back: flat, HNSW, IVF, quantizers (these give near vectors), behind ids too."""
    library = _package("faiss", "a faiss index", "faiss-cpu")
    try:
        index = library.read_index(str(path))
    except RuntimeError as error:
        raise DataError(f"{path} is no faiss index that can be read: {first_line(error)[:200]}.") from error
    metric = _metric(path, index.metric_type, _FAISS_METRICS)
    ids, inner, inside = _numbered(library, index, path)
    names = names_of(path, layout, ids)
    read = _reconstructed((index, inner), inside, path)
    exact = _is_exact(library, inner)
    kind = f"faiss {type(library.downcast_index(inner)).__name__}"
    return Index(path, kind, names, inner.d, read, {}, exact, metric, 1e-3 if exact else _UNEVEN_CODES)


def _metric(path: Path, found: Any, known: Mapping[Any, str | None]) -> str | None:
    """None for cosines. Raises `DataError` for what ranks otherwise even where all vectors are of one length."""
    if found not in known:
        raise DataError(
            f"{path} ranks by the metric {found}, and what is compared here are cosines; name the matrix of its "
            "vectors (.npy, .parquet) if that is what you want to know."
        )
    return known[found]


def _is_exact(library: Any, index: Any) -> bool:
    index = library.downcast_index(index)
    if isinstance(index, library.IndexPreTransform):
        chain = [library.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
        only_normalized = all(isinstance(one, library.NormalizationTransform) for one in chain)
        return only_normalized and _is_exact(library, index.index)
    if type(index).__name__ in ("IndexScalarQuantizer", "IndexIVFScalarQuantizer", "IndexHNSWSQ"):
        storage = library.downcast_index(index.storage) if hasattr(index, "storage") else index
        return storage.sq.qtype == library.ScalarQuantizer.QT_fp16
    return type(index).__name__ in _EXACT


def _numbered(library: Any, index: Any, path: Path) -> tuple[Any, Any, Any]:
    """The numbers that an index calls its vectors by, in the order that they are read in; the index that has them; and
    its own numbers for them, None for 0, 1, 2, ...
    """
    index = library.downcast_index(index)
    if isinstance(index, library.IndexIDMap):
        inner = library.downcast_index(index.index)
        _, _, inside = _numbered(library, inner, path)
        return library.vector_to_array(index.id_map).tolist(), inner, inside
    try:
        inverted = library.try_extract_index_ivf(index)
    except RuntimeError:  # of one that can have none
        inverted = None
    if inverted is None:
        return range(index.ntotal), index, None
    ids = _listed(library, inverted, path)
    if (ids == range(len(ids))).all():
        inverted.make_direct_map()
        return range(len(ids)), index, None
    inverted.set_direct_map_type(library.DirectMap.Hashtable)
    return ids.tolist(), index, ids


def _listed(library: Any, inverted: Any, path: Path) -> Any:
    """int64 [n]: the numbers in the inverted lists, sorted. Raises `DataError` for one that two vectors have."""
    import numpy

    lists = inverted.invlists
    sizes = ((number, lists.list_size(number)) for number in range(inverted.nlist))
    parts = [library.rev_swig_ptr(lists.get_ids(number), size).copy() for number, size in sizes if size]
    ids = numpy.sort(numpy.concatenate(parts)) if parts else numpy.empty(0, numpy.int64)
    if len(twice := ids[1:][ids[1:] == ids[:-1]]):
        raise DataError(
            f"{path}: {len(twice) + 1} vectors have the number {twice[0]} or others that are given twice; such a faiss "
            "index does not give its vectors back one by one. Name the matrix that it was made of."
        )
    return ids


def _reconstructed(indexes: tuple[Any, Any], inside: Any, path: Path) -> Callable[[], Iterator[Tensor]]:
    """indexes: the whole one, which owns the other, and the one inside it that has the vectors. inside: its numbers."""
    import torch

    def some(start: int, count: int) -> Any:
        index = indexes[1]  # both stay as long as this function does
        if inside is None:
            return index.reconstruct_n(start, count)
        return index.reconstruct_batch(inside[start : start + count])

    def read() -> Iterator[Tensor]:
        total = indexes[1].ntotal
        for start in range(0, total, ROWS):
            yield torch.from_numpy(some(start, min(ROWS, total - start)))

    try:
        if indexes[1].ntotal:
            some(0, 1)
    except RuntimeError as error:
        raise DataError(
            f"{path}: this faiss index does not give its vectors back: {first_line(error)[:200]}."
        ) from error
    return read


def usearch(path: Path, layout: Layout) -> Index:
    """A usearch index of floats or int8 codes, mapped; its keys are the numbers of the names."""
    library = _package("usearch.index", "a usearch index", "usearch")
    try:
        index = library.Index.restore(str(path), view=True)
    except Exception as error:  # the border to a library that raises what it likes for a damaged file
        raise DataError(f"{path} is no usearch index that can be read: {first_line(error)[:200]}.") from error
    if index is None:
        raise DataError(f"{path} is no usearch index that can be read; index.save(path) of usearch writes one.")
    kind, metric = _usearch_kinds(path, index)
    keys, read = _got(index)
    names = names_of(path, layout, keys.tolist())
    uneven = _UNEVEN.get(kind, 1e-3)
    return Index(path, f"usearch index of {kind}", names, index.ndim, read, {}, kind in _FLOATS, metric, uneven)


def _usearch_kinds(path: Path, index: Any) -> tuple[str, str | None]:
    """What its numbers and its metric are. Raises `DataError` for what gives no vectors back."""
    kind = str(index.dtype).rpartition(".")[2].lower()
    if kind not in (*_FLOATS, "i8"):
        raise DataError(f"{path} holds {kind} vectors, which give no floats back; name the float index or its matrix.")
    if index.multi:
        raise DataError(f"{path} keeps several vectors under one key (multi); name the matrix that it was made of.")
    return kind, _metric(path, str(index.metric_kind).rpartition(".")[2].lower(), _USEARCH_METRICS)


def _got(index: Any) -> tuple[Any, Callable[[], Iterator[Tensor]]]:
    """The keys in order, and what reads their vectors."""
    import numpy
    import torch

    keys = numpy.sort(numpy.asarray(index.keys[:] if len(index) else [], dtype=numpy.uint64))

    def read() -> Iterator[Tensor]:
        for start in range(0, len(keys), ROWS):
            found = numpy.asarray(index.get(keys[start : start + ROWS]))
            yield torch.from_numpy(found.astype(numpy.float32))

    return keys, read


def _package(name: str, what: str, distribution: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"{what} needs the package {distribution} ({error}); install it with: pip install 'clipq[clients]'"
        ) from error
