"""Pictures or texts in the rows of parquet files: listed by the files' footers, read row by row when it is their turn.

A row's value is found in a small window of decoded rows that moves along the file; so memory is for windows, whatever
the size of files and row groups, as long as rows are asked for about in order.
"""

from __future__ import annotations

import hashlib
import posixpath
import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeVar

from ..errors import ClipqError, DataError, SourceError, first_line
from .images import MAX_BYTES
from .places import is_remote, name_of, open_place, read_place
from .table_columns import TableColumn, chosen, keys_of

T = TypeVar("T")

_WINDOW = 64  # rows decoded at a time
_WINDOWS = 3  # kept: threads that read ahead are seldom further apart than one
_FILES = 4  # open at a time in a process
_BUFFER = 1 << 20


@dataclass(frozen=True)
class TableRow:
    """The value of a row, not yet read: a picture's bytes, or a text."""

    file: str
    column: TableColumn
    row: int
    key: str
    label: int = 0
    size: int = 0  # not known without reading the row

    def read(self) -> Any:
        """Raises `OSError` for a row without a value, `SourceError` where the file itself cannot be read."""
        value = _stream(self.file, self.column.name).value(self.row)
        if self.column.kind == "struct" and value is not None:
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if self.column.kind == "text" or value is None:
            return value if self.column.kind == "text" else _refuse(f"no picture in row {self.row}")
        if isinstance(value, str):
            return read_place(self._place(value))
        return value if len(value) <= MAX_BYTES else _refuse(f"more than {MAX_BYTES} bytes in row {self.row}")

    def _place(self, path: str) -> str:
        """Where a path of the table leads, if it is to be followed: as it stands, or from the table's folder."""
        if not self.column.named:
            _refuse("a path and no bytes; paths in a table are opened where its column is named (--column)")
        folder = self.file.rpartition("/")[0]
        return path if is_remote(path) else posixpath.join(folder, path)


def _refuse(reason: str) -> Any:
    raise OSError(reason)


class _Stream:
    """A column of a file, from front to back; threads may ask for rows that are near each other."""

    def __init__(self, source: str, column: str):
        self.source, self.column = source, column
        self.lock = threading.Lock()
        self.windows: deque[tuple[int, Any]] = deque(maxlen=_WINDOWS)
        self.file = _opened(source)
        metadata = self.file.metadata
        self.groups = [0, *accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))]
        self.next, self.batches = -1, iter(())

    def value(self, row: int) -> Any:
        with self.lock:
            try:
                return self._value(row)
            except Exception as error:  # the border to Arrow, whose errors are of many kinds
                self.next, self.batches = -1, iter(())
                raise SourceError(
                    f"{self.source} cannot be read at row {row}: {first_line(error)}. What is finished is kept: give "
                    "the same command again once the file is whole and can be reached."
                ) from error

    def _value(self, row: int) -> Any:
        for start, column in self.windows:
            if start <= row < start + len(column):
                return column[row - start].as_py()
        if not self.next <= row < self._end():
            self._begin(row)
        while row >= self.next:
            (column,) = next(self.batches).columns
            self.windows.append((self.next, column))
            self.next += len(column)
        start, column = self.windows[-1]
        return column[row - start].as_py()

    def _end(self) -> int:
        """Where the row group ends that the next window is of, or the one after it: further on is begun anew."""
        return self.groups[min(bisect_right(self.groups, self.next) + 1, len(self.groups) - 1)] if self.next >= 0 else 0

    def _begin(self, row: int) -> None:
        group = bisect_right(self.groups, row) - 1
        self.next = self.groups[group]
        groups = list(range(group, len(self.groups) - 1))
        self.batches = self.file.iter_batches(_WINDOW, row_groups=groups, columns=[self.column], use_threads=False)


_streams: OrderedDict[tuple[str, str], _Stream] = OrderedDict()
_lock = threading.Lock()


def _stream(source: str, column: str) -> _Stream:
    with _lock:
        key = source, column
        if key not in _streams:
            _streams[key] = _Stream(source, column)
        _streams.move_to_end(key)
        while len(_streams) > _FILES:
            _streams.popitem(last=False)
        return _streams[key]


def _opened(source: str) -> Any:
    from pyarrow import parquet

    try:
        place = open_place(source) if is_remote(source) else source
        return parquet.ParquetFile(place, buffer_size=_BUFFER, pre_buffer=False)
    except Exception as error:  # the border to Arrow and to file systems
        raise SourceError(f"{source} cannot be read as parquet: {first_line(error)}.") from error


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


def listed_table(files: Sequence[str], column: str | None, names: str | None) -> Table:
    """The rows of parquet files. Raises `DataError` for no rows, a missing column, or files that do not agree.

    column: that holds the pictures or texts; None: the one that must be it. names: that names the rows; None: the
    first of "name", "key", "id" and the like; a row that has none is called FILE#ROW.
    """
    opened = {file: _opened(file) for file in files}
    columns = {_of_file(file, lambda file=file: chosen(opened[file], column, file)) for file in files}
    if len(columns) > 1:
        raise DataError(f"the tables beside {files[0]} do not agree in what to embed: {sorted(map(str, columns))}.")
    (found,) = columns
    keys = tuple(_of_file(file, lambda file=file: keys_of(opened[file], names, found.name, file)) for file in files)
    digest = hashlib.sha256(f"{found.name} {found.kind}".encode())
    for file in files:
        digest.update(f"{name_of(file)}\0{opened[file].metadata.num_rows}\0{_footer(file)}\n".encode())
    rows = tuple(one.metadata.num_rows for one in opened.values())
    if not sum(rows):
        raise DataError(f"{files[0]} has no rows, so there is nothing to embed.")
    return Table(tuple(files), rows, found, keys, digest.hexdigest())


def _of_file(file: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ClipqError:
        raise
    except Exception as error:  # the border to Arrow, whose errors are of many kinds
        raise SourceError(f"{file} cannot be read as parquet: {first_line(error)}.") from error


def _footer(source: str) -> str:
    """sha256 of a parquet file's footer, which has the place, the size and mostly the extremes of each of its parts."""
    with open_place(source) as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        return hashlib.sha256(file.read(length)).hexdigest()
