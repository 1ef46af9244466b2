"""Embeddings as a Parquet table: a row each, its name and a vector of fixed size, as `datasets` and DuckDB read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..resources import output_path
from ..vectors.ranges import TENSORS

if TYPE_CHECKING:
    from .embeddings import Embeddings

_ROWS = 4096  # of a row group: what readers that look at a part of the table read of it


def save_parquet(found: Embeddings, rest: dict[str, Any], path: Path) -> None:
    """Columns "name" (string) and "embedding" (a list of fixed size); `rest` as JSON in the metadata, under "clipq"."""
    import pyarrow
    from pyarrow import parquet

    ranges = {} if found.ranges is None else {name: getattr(found.ranges, name).tolist() for name in TENSORS}
    width = found.matrix.shape[1]
    values = pyarrow.array(found.matrix.contiguous().numpy().reshape(-1))
    columns = [
        pyarrow.array([name.encode("utf-8", "surrogateescape") for name in found.names], pyarrow.binary()),
        pyarrow.FixedSizeListArray.from_arrays(values, width),
    ]
    if all(map(_is_text, found.names)):  # a file name on Linux may be any bytes
        columns[0] = columns[0].cast(pyarrow.string())
    about = json.dumps({**rest, "tensors": ranges})
    table = pyarrow.table(columns, names=["name", "embedding"]).replace_schema_metadata({"clipq": about})
    with output_path(path) as temporary:
        parquet.write_table(table, temporary, row_group_size=_ROWS, compression="none")


def read_parquet(path: Path) -> tuple:
    """The matrix, the names, what the metadata says, and the tensors of the ranges."""
    import torch
    from pyarrow import parquet

    table = parquet.read_table(path)
    about = json.loads(table.schema.metadata[b"clipq"])
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in about.pop("tensors").items()}
    column = table.column("embedding").combine_chunks()
    if column.null_count or column.flatten().null_count or table.column("name").null_count:
        raise ValueError("there are rows without a value")
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    names = [one if isinstance(one, str) else one.decode("utf-8", "surrogateescape") for one in _names(table)]
    return torch.from_numpy(values.copy()), names, about, tensors


def about_parquet(path: Path) -> dict[str, Any]:
    """What the metadata says, read without the rows."""
    from pyarrow import parquet

    return json.loads(parquet.read_schema(path).metadata[b"clipq"])


def _names(table: Any) -> list[str | bytes]:
    return table.column("name").to_pylist()


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
