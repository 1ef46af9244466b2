"""The rows of parquet files, listed by the files' footers: how many there are, what they are called, what is read."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from ..errors import ClipqError, DataError, SourceError, first_line
from .places import name_of, open_place
from .table_columns import Asked, TableColumn, chosen, keys_of
from .table_rows import TableRow, opened_table


@dataclass(frozen=True)
class Table:
    """Parquet files that share a column. `rows`: of each file. `keys`: each file's names, None where it has none."""

    files: tuple[str, ...]
    rows: tuple[int, ...]
    column: TableColumn
    keys: tuple[Any, ...]
    digest: str

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
        return f"{name_of(self.files[file])}#{own}" if value is None else str(value)

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
    keys = tuple(part.keys and part.keys[1] for part in parts)
    return Table(tuple(files), rows, found, keys, _digest(found, files, parts))


def _digest(column: TableColumn, files: Sequence[str], parts: Sequence[_Part]) -> str:
    """sha256 of all that decides what the rows are, what they are called, and which of them can be read."""
    digest = hashlib.sha256(f"{column.name}\0{column.kind}\0{column.named}\n".encode())
    for file, part in zip(files, parts, strict=True):
        key = part.keys and part.keys[0]
        digest.update(f"{name_of(file)}\0{part.rows}\0{part.footer}\0{key}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@dataclass(frozen=True)
class _Part:
    """What is to be known of one file before its rows are read. keys: of `keys_of`."""

    column: TableColumn
    rows: int
    keys: tuple[str, Any] | None
    footer: str


def _part(file: str, asked: Asked) -> _Part:
    """One file is open at a time: there may be more of them than a process may open."""
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
