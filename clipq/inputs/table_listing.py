"""The rows of parquet files, listed by the files' footers: how many there are, what they are called, what is read."""

from __future__ import annotations

import hashlib
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from ..errors import ClipqError, ClipqWarning, DataError, SourceError, first_line
from .places import names_of, open_place
from .table_columns import Asked, TableColumn, chosen, keys_of, repeated
from .table_rows import TableRow, forget_table, opened_table


@dataclass(frozen=True)
class Table:
    """Parquet files that share a column. names, rows: of each file. keys: its rows' names, None if it has none."""

    files: tuple[str, ...]
    names: tuple[str, ...]
    rows: tuple[int, ...]
    column: TableColumn
    keys: tuple[Any, ...]
    digest: str
    given_up: str = ""  # the column that would have named the rows, if it did not name two of them alike

    def place(self, row: int) -> tuple[int, int]:
        """The file that holds a row, and the row there."""
        ends = self._ends
        file = bisect_right(ends, row)
        return file, row - (ends[file] - self.rows[file])

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.rows))

    def name(self, row: int) -> str:
        file, own = self.place(row)
        value = None if self.keys[file] is None else self.keys[file][own].as_py()
        return f"{self.names[file]}#{own}" if value is None else str(value)

    def entry(self, row: int) -> TableRow:
        file, own = self.place(row)
        return TableRow(self.files[file], self.column, own, self.name(row))


class Listed(Sequence):
    """A sequence whose items are made when they are asked for."""

    def __init__(self, count: int, item: Any):
        self.count, self.item = count, item

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return tuple(self.item(one) for one in range(*place.indices(self.count)))
        return self.item(range(self.count)[place])

    def __iter__(self) -> Iterator[Any]:
        return map(self.item, range(self.count))


def listed_table(files: Sequence[str], asked: Asked) -> Table:
    """The rows of parquet files. Raises `DataError` for no rows, a missing column, or files that do not agree.

    asked: without a column, the one that must be it; without names, the first of "name", "key", "id" and the like; a
    row that has none is called FILE#ROW.
    """
    parts = [_part(file, asked) for file in files]
    columns = {part.column: file for part, file in zip(parts, files, strict=True)}
    if len(columns) > 1:
        those = ", ".join(f"{column.name!r} of {column.kind} in {file}" for column, file in columns.items())
        raise DataError(f"the tables do not agree in what to embed: {those}; name it: --column NAME (and --as).")
    (found,) = columns
    rows = tuple(part.rows for part in parts)
    if not sum(rows):
        raise DataError(f"{files[0]} has no rows, so there is nothing to embed.")
    keys, called = _keys(parts, asked.names, files[0]), tuple(names_of(files))
    followed = found.named and found.kind == "struct"  # its paths, which are refused in a column that nobody named
    digest = hashlib.sha256(f"{found.name}\0{found.kind}\0{followed}\n".encode())
    for name, key, part in zip(called, keys, parts, strict=True):
        line = f"{name}\0{part.rows}\0{part.footer}\0{key and key[0]}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    given_up = next((part.keys[0] for part, key in zip(parts, keys, strict=True) if part.keys and not key), "")
    return Table(tuple(files), called, rows, found, tuple(key and key[1] for key in keys), digest.hexdigest(), given_up)


def _keys(parts: Sequence[_Part], names: str | None, source: str) -> list[tuple[str, Any] | None]:
    """The columns that name the rows of each file, each row differently, and their values; or none.

    Raises `DataError` where the user named a column (`names`) that does not.
    """
    keys = [part.keys for part in parts]
    again = repeated([key[1] for key in keys if key])
    if again is None:
        return keys
    column = next(key[0] for key in keys if key)
    if names is not None:
        raise DataError(
            f"the column {names!r} calls several rows {again!r}, and a row is known by its name; name another one, or "
            "none: then rows are called FILE#ROW."
        )
    text = f"the column {column!r} of {source} calls several rows {again!r}, so rows are called FILE#ROW"
    warnings.warn(f"{text}; --names NAME names another column", ClipqWarning, stacklevel=2)
    return [None] * len(keys)


@dataclass(frozen=True)
class _Part:
    """What is to be known of one file before its rows are read. keys: of `keys_of`."""

    column: TableColumn
    rows: int
    keys: tuple[str, Any] | None
    footer: str


def _part(file: str, asked: Asked) -> _Part:
    """One file is open at a time: there may be more of them than a process may open."""
    forget_table(file)
    opened = opened_table(file)
    try:
        found = chosen(opened, asked, file)
        return _Part(found, opened.metadata.num_rows, keys_of(opened, asked.names, found.name, file), _footer(file))
    except ClipqError:
        raise
    except Exception as error:  # the border to Arrow, whose errors are of many kinds
        raise SourceError(f"{file} cannot be read as parquet: {first_line(error)}.") from error
    finally:
        opened.close(force=True)


def _footer(source: str) -> str:
    """sha256 of a parquet file's footer, which has the place, the size and mostly the extremes of each of its parts."""
    with open_place(source) as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        return hashlib.sha256(file.read(length)).hexdigest()
