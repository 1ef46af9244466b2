"""Batches as engines hold them: a mapping of columns, a pandas DataFrame, a pyarrow Table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DataError

if TYPE_CHECKING:
    import numpy


def kind_of(batch: Any) -> str:
    """ "pandas", "pyarrow" or "columns"; neither package is imported for that. Raises `DataError` for anything else."""
    package = type(batch).__module__.partition(".")[0]
    if package in ("pandas", "pyarrow") and hasattr(batch, "columns"):
        return package
    if isinstance(batch, Mapping):
        return "columns"
    raise DataError(
        f"a {type(batch).__name__} is no batch; give a mapping of columns ({{'image': [...]}}), a pandas DataFrame or "
        "a pyarrow Table."
    )


def names_of(batch: Any) -> list[str]:
    """The names of the columns."""
    return list(batch.column_names) if kind_of(batch) == "pyarrow" else list(batch.keys())


def column_of(batch: Any, name: str) -> list[Any]:
    """The values of a column as Python or numpy has them."""
    column = batch[name]
    return _of_arrow(column) if kind_of(batch) == "pyarrow" else list(column)


def _of_arrow(column: Any) -> list[Any]:
    """Ray keeps arrays in an extension type, whose own conversion is to numpy."""
    if hasattr(column.type, "extension_name"):
        chunks = column.chunks if hasattr(column, "chunks") else [column]
        return [one for chunk in chunks for one in chunk.to_numpy(zero_copy_only=False)]
    return column.to_pylist()


def with_columns(batch: Any, vectors: numpy.ndarray, errors: Sequence[str | None], space: str) -> Any:
    """The batch with `embedding`, `error` and `space_id`; columns of these names are replaced.

    vectors: [n, C] for all n rows; those with an error are null in pandas and pyarrow, and as they are in a mapping.
    """
    return _WAYS[kind_of(batch)](batch, vectors, list(errors), space)


def arrow_vectors(vectors: numpy.ndarray, errors: Sequence[str | None]) -> Any:
    """A pyarrow array of lists of fixed size; null where there is an error."""
    import numpy
    import pyarrow

    values = pyarrow.array(numpy.ascontiguousarray(vectors).reshape(-1))
    missing = numpy.array([error is not None for error in errors], bool)
    return pyarrow.FixedSizeListArray.from_arrays(values, vectors.shape[1], mask=pyarrow.array(missing))


def _in_columns(batch: Mapping[str, Any], vectors: Any, errors: list[str | None], space: str) -> dict[str, Any]:
    import numpy

    whys, ids = numpy.empty(len(errors), object), numpy.full(len(errors), space, object)
    whys[:] = errors
    return {**batch, "embedding": vectors, "error": whys, "space_id": ids}


def _in_pandas(batch: Any, vectors: Any, errors: list[str | None], space: str) -> Any:
    import pandas

    rows = [None if error is not None else row for row, error in zip(vectors, errors, strict=True)]
    column = pandas.Series(rows, index=batch.index, dtype=object)
    return batch.assign(embedding=column, error=pandas.Series(errors, index=batch.index, dtype=object), space_id=space)


def _in_pyarrow(batch: Any, vectors: Any, errors: list[str | None], space: str) -> Any:
    import pyarrow

    table = batch if isinstance(batch, pyarrow.Table) else pyarrow.Table.from_batches([batch])
    table = table.drop_columns([name for name in ("embedding", "error", "space_id") if name in table.column_names])
    found = arrow_vectors(vectors, errors)  # of a column of fixed size with nulls pyarrow cannot read its own parquet
    table = table.append_column("embedding", found.cast(pyarrow.list_(found.type.value_type)))
    table = table.append_column("error", pyarrow.array(errors, pyarrow.string()))
    return table.append_column("space_id", pyarrow.array([space] * len(errors), pyarrow.string()))


_WAYS = {"columns": _in_columns, "pandas": _in_pandas, "pyarrow": _in_pyarrow}
