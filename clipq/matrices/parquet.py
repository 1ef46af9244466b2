"""Embeddings as a Parquet table: a row each, its name and a vector of fixed size, as `datasets` and DuckDB read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..resources import output_path
from ..vectors.ranges import TENSORS

if TYPE_CHECKING:
    from .embeddings import Embeddings

_ROWS = 4096  # of a row group: what readers that look at a part of the table read of it


def save_parquet(found: Embeddings, rest: dict[str, Any], path: Path) -> None:
    """Columns "name" (string) and "embedding" (a list of fixed size); `rest` as JSON in the metadata, under "clipq".

    A name of a file that is no Unicode stands as `as_text` of it, and itself under "raw_names" of the metadata.
    """
    import pyarrow
    from pyarrow import parquet

    ranges = {} if found.ranges is None else {name: getattr(found.ranges, name).tolist() for name in TENSORS}
    width = found.matrix.shape[1]
    values = pyarrow.array(found.matrix.contiguous().numpy().reshape(-1))
    names = [*map(as_text, found.names)]
    columns = [pyarrow.array(names, pyarrow.string()), pyarrow.FixedSizeListArray.from_arrays(values, width)]
    raw = {row: name for row, (name, text) in enumerate(zip(found.names, names, strict=True)) if name != text}
    about = json.dumps({**rest, "tensors": ranges, **({"raw_names": raw} if raw else {})})
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
    names = _names(table, about.pop("raw_names", {}))
    column = table.column("embedding").combine_chunks()
    if column.null_count or column.flatten().null_count or table.column("name").null_count:
        raise ValueError("there are rows without a value")
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    return torch.from_numpy(values.copy()), names, about, tensors


def about_parquet(path: Path) -> dict[str, Any]:
    """What the metadata says, read without the rows."""
    return about_of(path)[0]


def about_of(file: Path | BinaryIO) -> tuple[dict[str, Any], dict[str, str]]:
    """What the metadata says, and of some rows the names that are no Unicode."""
    from pyarrow import parquet

    about = json.loads(parquet.read_schema(file).metadata[b"clipq"])
    return about, about.pop("raw_names", {})


def names_of(file: BinaryIO) -> list[str]:
    """The names of all rows."""
    from pyarrow import parquet

    raw = about_of(file)[1]
    return _names(parquet.read_table(file, columns=["name"]), raw)


def _names(table: Any, raw: dict[str, str]) -> list[str]:
    names = table.column("name").to_pylist()
    if names and isinstance(names[0], bytes):  # so 0.7 wrote names that are no Unicode, and all beside them
        names = [name.decode("utf-8", "surrogateescape") for name in names]
    for row, name in raw.items():
        names[int(row)] = name
    return names


def as_text(name: str) -> str:
    """As Unicode, for other readers, with backslashes for the rest: a file name on Linux may be any bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
