"""Pictures or texts in the rows of parquet files, read row by row when it is their turn.

A row's value is found in a small window of decoded rows that moves along the file; so memory is for windows, whatever
the size of files and row groups, as long as rows are asked for about in order.
"""

from __future__ import annotations

import posixpath
import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ..errors import SourceError, first_line
from .images import MAX_BYTES
from .places import NOBODYS_FAULT, is_remote, open_place, path_of, read_place, reading, stamp_of
from .table_columns import TableColumn

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
        value = _value(self.file, self.column.name, self.row)
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
        folder = path_of(self.file).rpartition("/")[0]
        return path if is_remote(path) else posixpath.join(folder, path)


def _refuse(reason: str) -> Any:
    raise OSError(reason)


class _Stream:
    """A column of a file, from front to back; threads may ask for rows that are near each other."""

    def __init__(self, source: str, column: str):
        self.source, self.column = source, column
        self.lock = threading.Lock()
        self.windows: deque[tuple[int, Any]] = deque(maxlen=_WINDOWS)
        self.file: Any = None
        self.groups = [0]
        self.next, self.batches = -1, iter(())

    def value(self, row: int) -> Any:
        with self.lock, reading(self.source, f" at row {row}"):
            if self.file is None:
                self._open()
            return self._value(row)

    def _open(self) -> None:
        self.file = opened_table(self.source)
        metadata = self.file.metadata
        self.groups = [0, *accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))]

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


_streams: OrderedDict[tuple[Any, ...], _Stream] = OrderedDict()
_lock = threading.Lock()


def _value(source: str, column: str, row: int) -> Any:
    """A row's value. A file that failed is opened anew the next time."""
    with reading(source):
        key = source, column, stamp_of(source)
    with _lock:
        stream = _streams.setdefault(key, _Stream(source, column))
        _streams.move_to_end(key)
        while len(_streams) > _FILES:
            _streams.popitem(last=False)
    try:
        return stream.value(row)
    except BaseException:
        with _lock:
            _streams.pop(key, None)
        raise


def forget_table(source: str) -> None:
    """Open a file anew the next time it is read: it is listed now, and may be another one than it was."""
    with _lock:
        for key in [key for key in _streams if key[0] == source]:
            del _streams[key]


def opened_table(source: str) -> Any:
    """The `ParquetFile` of a path or URL. Raises `SourceError`."""
    from pyarrow import parquet

    try:
        place = open_place(source) if is_remote(source) else source
        return parquet.ParquetFile(place, buffer_size=_BUFFER, pre_buffer=False)
    except NOBODYS_FAULT:
        raise
    except Exception as error:  # the border to Arrow and to file systems
        raise SourceError(f"{source} cannot be read as parquet: {first_line(error)}.") from error
