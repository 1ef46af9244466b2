"""Vectors that others wrote: arrays, tensors and tables, with the names of their rows in the file or beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, unknown_name
from .index import ROWS, Index
from .names import names_for
from .raw import npy_blocks, npy_matrix, safetensors_header, safetensors_matrix

if TYPE_CHECKING:
    from torch import Tensor

    from .layouts import Layout

_NAMES = ("name", "path", "file", "filename", "file_name", "key", "url", "id", "text", "caption")
_VECTORS = ("embedding", "embeddings", "vector", "vectors", "emb", "values", "feature", "features")


def npy(path: Path, layout: Layout) -> Index:
    """float [n, D] of numpy."""
    import numpy
    import torch

    array = numpy.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise DataError(
            f"{path} is {array.dtype} {list(array.shape)}; an index is an array of floats [rows, width], of 64 bits at "
            "most."
        )
    matrix = npy_matrix(path)

    def read() -> Iterator[Tensor]:
        return map(torch.from_numpy, npy_blocks(path)) if matrix is None else matrix.blocks()

    return Index(path, f"numpy array of {array.dtype}", names_for(path, layout, len(array)), array.shape[1], read)


def safetensors(path: Path, layout: Layout) -> Index:
    """The one matrix of a file, or the tensor that `layout` names."""
    _, entries, start = safetensors_header(path)
    matrices = [key for key, entry in entries.items() if len(entry["shape"]) == 2]
    name = _chosen(path, "tensor", layout.vectors, matrices, _VECTORS)
    matrix = safetensors_matrix(path, entries[name], start)
    if "int" in matrix.dtype:
        raise DataError(f"{path}: tensor {name!r} is {matrix.dtype}; an index is a matrix of floats [rows, width].")
    rows, width = matrix.shape
    return Index(path, f"safetensors, tensor {name!r}", names_for(path, layout, rows), width, matrix.blocks)


def parquet(path: Path, layout: Layout) -> Index:
    """A table, or a folder of tables in the order of their names: a column of lists of floats, and one of names."""
    from pyarrow import parquet as tables

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    with tables.ParquetFile(files[0]) as first:
        schema = first.schema_arrow
    lists = [field.name for field in schema if _is_vector(field.type)]
    vectors = _chosen(path, "column of vectors", layout.vectors, lists, _VECTORS)
    for file in files[1:]:
        own = tables.read_schema(file)
        if vectors not in own.names or not _is_vector(own.field(vectors).type):
            raise DataError(f"{file} has no column {vectors!r} of vectors, as {files[0].name} beside it has.")
    names = _table_names(files, path, layout, schema)

    def read() -> Iterator[Tensor]:
        for file in files:
            yield from _vectors(file, vectors)

    width = next(read()).shape[1]
    return Index(path, f"parquet, column {vectors!r}", names, width, read)


def _is_vector(kind: Any) -> bool:
    from pyarrow import types

    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and types.is_floating(kind.value_type)


def _vectors(path: Path, column: str) -> Iterator[Tensor]:
    import torch
    from pyarrow import compute
    from pyarrow import parquet as tables

    with tables.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS, columns=[column]):
            values = batch.column(0)
            flat = values.flatten().to_numpy(zero_copy_only=False)
            if values.null_count or len(compute.unique(compute.list_value_length(values))) > 1:
                raise DataError(f"{path}: some rows of {column!r} have no vector, or one of another width.")
            if len(values):
                yield torch.from_numpy(flat.reshape(len(values), -1).copy())


def _table_names(files: Sequence[Path], path: Path, layout: Layout, schema: Any) -> Sequence[str]:
    from pyarrow import parquet as tables
    from pyarrow import types

    plain = [field.name for field in schema if types.is_string(field.type) or types.is_large_string(field.type)]
    plain += [field.name for field in schema if types.is_integer(field.type)]
    if layout.names is not None or (layout.name_column is None and not plain):
        return names_for(path, layout, sum(tables.read_metadata(file).num_rows for file in files))
    column = _chosen(path, "column of names", layout.name_column, plain, _NAMES)
    return tuple(name for file in files for name in _named(file, column))


def _named(file: Path, column: str) -> Iterator[str]:
    from pyarrow import parquet as tables

    if column not in tables.read_schema(file).names:
        raise DataError(f"{file} has no column {column!r} of names, as others beside it have.")
    found = tables.read_table(file, columns=[column]).column(0)
    if found.null_count:
        raise DataError(
            f"{file}: {found.null_count} rows have no {column!r}; name another column (of OLD: --name-column)."
        )
    return map(str, found.to_pylist())


def _chosen(path: Path, what: str, asked: str | None, there: Sequence[str], usual: Sequence[str]) -> str:
    """The one asked for, else the only one, else the first of the usual names. Raises `DataError`."""
    if asked is not None:
        if asked not in there:
            raise DataError(str(unknown_name(what, asked, there, f"Those are in {path}.")))
        return asked
    found = [name for name in usual if name in there] or list(there[: len(there) == 1])
    if not found:
        listed = ", ".join(map(repr, there)) or "none"
        raise DataError(
            f"{path}: which {what} is meant cannot be told; there are: {listed}. Name it (of OLD: --vectors or "
            "--name-column)."
        )
    return found[0]
