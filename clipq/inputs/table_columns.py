"""Which column of a parquet file holds what is to be embedded, and which one names the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError, unknown_name
from .images import is_image
from .places import is_remote

KEYS = ("name", "key", "__key__", "id", "uid", "image_id", "filename", "file_name", "path", "url")
"""Names of columns that name rows, the first one that is there."""

STRINGS = ("path", "text")
"""What strings may be: places of pictures (paths or URLs), or texts."""
_PART = 1 << 16  # names at a time
_WINDOW = 64  # strings that are looked at


@dataclass(frozen=True)
class TableColumn:
    """A column, and what it holds: "bytes" of pictures, a "struct" of bytes and path, a "path", or a "text"."""

    name: str
    kind: str
    named: bool = False  # by the user: then the paths in it are opened, wherever they lead

    @property
    def tower(self) -> str:
        return "text" if self.kind == "text" else "image"


@dataclass(frozen=True)
class Asked:
    """What a user says of a table. column: to embed; names: that names the rows; as_: what strings in `column` are."""

    column: str | None = None
    names: str | None = None
    as_: str | None = None

    def __post_init__(self) -> None:
        if self.as_ is not None and self.as_ not in STRINGS:
            raise unknown_name("kind of strings", self.as_, STRINGS)
        if self.as_ is not None and self.column is None:
            raise DataError(f"as {self.as_!r}: which column is not said; name it: --column NAME --as {self.as_}.")

    def refuse(self, source: object) -> None:
        """Raise `DataError` if anything was said: `source` is no table."""
        if said := self.column or self.names:
            raise DataError(f"{source} is no table, so it has no column {said!r}; leave that out.")


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


def repeated(columns: Sequence[Any]) -> str | None:
    """A name that two rows have; None if there is none. Takes 16 bytes a row, and some names at a time."""
    import numpy

    parts = [numpy.fromiter(map(hash, names), numpy.int64, len(names)) for names in _names(columns)]
    hashes = numpy.concatenate([*parts, numpy.empty(0, numpy.int64)])
    hashes.sort()
    again = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen: set[str] = set()
    for name in (name for names in _names(columns) if again for name in names if hash(name) in again):
        if name in seen:
            return name
        seen.add(name)
    return None  # two names with one hash are two names


def _names(columns: Sequence[Any]) -> Iterator[list[str]]:
    """The names of rows in parts, as messages show them; a row without one is called otherwise."""
    for column in columns:
        for start in range(0, len(column), _PART):
            yield [str(name).strip() for name in column.slice(start, _PART).to_pylist() if name is not None]


def _is_key(schema: Any, name: str) -> bool:
    from pyarrow import types

    kind = schema.field(name).type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)


def chosen(file: Any, asked: Asked, source: str) -> TableColumn:
    """The column to embed, by its name or because no other can be meant."""
    schema = file.schema_arrow
    kinds = {field.name: kind for field in schema if (kind := _kind(field.type))}
    if asked.column is not None:
        return TableColumn(asked.column, _named(file, asked, kinds, source), named=True)
    for wanted, usual in ((("bytes", "struct"), "image"), (("text",), "text")):
        found = [name for name, kind in kinds.items() if kind in wanted]
        found = [usual] if usual in found else found
        if len(found) == 1 and (kinds[found[0]] != "text" or _path_or_text(file, found[0], source) != "path"):
            return TableColumn(found[0], kinds[found[0]])
        if found:
            break
    raise DataError(
        f"{source} has the columns {', '.join(schema.names)}, and which of them is to be embedded is not clear; name "
        "it: --column NAME."
    )


def _named(file: Any, asked: Asked, kinds: dict[str, str], source: str) -> str:
    """What the column holds that the user named."""
    column = asked.column
    if column not in kinds:
        raise DataError(
            f"{source} has no column {column!r} of pictures, paths or texts; it has: {', '.join(kinds) or 'none'}."
        )
    if kinds[column] == "text":
        return asked.as_ or _path_or_text(file, column, source)
    if asked.as_ is not None:
        raise DataError(f"the column {column!r} of {source} holds bytes, which are pictures; leave out --as.")
    return kinds[column]


def _kind(kind: Any) -> str:
    from pyarrow import types

    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    return "struct" if types.is_struct(kind) and "bytes" in {field.name for field in kind} else ""


def _path_or_text(file: Any, column: str, source: str) -> str:
    """What a column of strings holds, by its first ones: names of picture files, and URLs, are no texts."""
    found: list[str] = []
    for batch in file.iter_batches(_WINDOW, columns=[column], use_threads=False):
        found += [value for value in batch.column(0).to_pylist() if value is not None and value.strip()]
        if found:
            break
    places = [value for value in found if _is_place(value)]
    if 0 < len(places) < len(found):
        other = next(value for value in found if not _is_place(value))
        raise DataError(
            f"whether the column {column!r} of {source} holds paths or texts is not clear: {places[0][:80]!r} is named "
            f"like a picture, {other[:80]!r} is not; say it: --column {column} --as path, or --as text."
        )
    return "path" if places else "text"


def _is_place(value: str) -> bool:
    return is_image(value.partition("?")[0]) or (is_remote(value) and len(value.split()) == 1)
