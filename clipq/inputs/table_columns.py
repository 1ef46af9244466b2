"""Which column of a parquet file holds what is to be embedded, and which one names the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from .images import is_image

KEYS = ("name", "key", "__key__", "id", "uid", "image_id", "filename", "file_name", "path", "url")
"""Names of columns that name rows, the first one that is there."""


@dataclass(frozen=True)
class TableColumn:
    """A column, and what it holds: "bytes" of pictures, a "struct" of bytes and path, a "path", or a "text"."""

    name: str
    kind: str
    named: bool = False  # by the user: then the paths in it are opened, wherever they lead

    @property
    def tower(self) -> str:
        return "text" if self.kind == "text" else "image"


def keys_of(file: Any, names: str | None, column: str, source: str) -> tuple[str, Any] | None:
    """The column that names the rows, and its values in memory; None if there is none."""
    schema = file.schema_arrow
    if names is not None and names not in schema.names:
        raise DataError(f"{source} has no column {names!r} to name its rows; it has: {', '.join(schema.names)}.")
    found = names or next((one for one in KEYS if one in schema.names and one != column and _is_key(schema, one)), None)
    if found is None:
        return None
    values = file.read(columns=[found]).column(found)
    values.validate(full=True)
    if len(values) != file.metadata.num_rows:
        raise ValueError(f"it says {file.metadata.num_rows} rows, and {found!r} has {len(values)}")
    return found, values


def _is_key(schema: Any, name: str) -> bool:
    from pyarrow import types

    kind = schema.field(name).type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)


def chosen(file: Any, column: str | None, source: str) -> TableColumn:
    """The column to embed, by its name or because no other can be meant."""
    schema = file.schema_arrow
    kinds = {field.name: kind for field in schema if (kind := _kind(field.type))}
    if column is not None:
        if column not in kinds:
            raise DataError(
                f"{source} has no column {column!r} of pictures, paths or texts; it has: {', '.join(kinds) or 'none'}."
            )
        kind = kinds[column]
        return TableColumn(column, _path_or_text(file, column) if kind == "text" else kind, named=True)
    for wanted, usual in ((("bytes", "struct"), "image"), (("text",), "text")):
        found = [name for name, kind in kinds.items() if kind in wanted]
        found = [usual] if usual in found else found
        if len(found) == 1 and _path_or_text(file, found[0], kinds) != "path":
            return TableColumn(found[0], kinds[found[0]])
        if found:
            break
    raise DataError(
        f"{source} has the columns {', '.join(schema.names)}, and which of them is to be embedded is not clear; name "
        "it: --column NAME."
    )


def _kind(kind: Any) -> str:
    from pyarrow import types

    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    return "struct" if types.is_struct(kind) and "bytes" in {field.name for field in kind} else ""


def _path_or_text(file: Any, column: str, kinds: Any = None) -> str:
    """What a column of strings holds, by its first value: names of picture files are no texts."""
    if kinds is not None and kinds[column] != "text":
        return kinds[column]
    first = next(file.iter_batches(1, columns=[column]), None)
    value = first.column(0)[0].as_py() if first is not None and len(first) else None
    return "path" if isinstance(value, str) and is_image(value.partition("?")[0]) else "text"
