"""Inside a .mnn file: where its convolutions keep their quantized weights, so that others can be put there.

A .mnn file is a flatbuffer (https://flatbuffers.dev/internals) of MNN's schema (schema/default/MNN.fbs and CaffeOp.fbs
in https://github.com/alibaba/MNN), of which this knows the few fields below. A linear is a convolution there. Its
weight of b bits is `Stored`: a header, then the integers as unsigned numbers of b bits, row by row, the first in the
highest bits; and its scales in float32, one a block of inputs, or in pairs after what the smallest integer stands for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ExportError

WEIGHTS = ".weight"
"""What is put behind the file's name for weights that lie beside it, as MNN writes them above 2 GB."""

_NET_CODE, _NET_OPERATORS = 0, 3
_OP_MAIN_TYPE, _OP_MAIN, _OP_NAME = 1, 2, 3
_CONV_QUANTIZED, _CONV_EXTERNAL = 3, 6
_QUANTIZED_BUFFER, _QUANTIZED_SCALES, _QUANTIZED_TYPE, _QUANTIZED_BITS = 0, 1, 2, 7
_CONVOLUTION = 9  # the place of Convolution2D in the union of operators' parameters
_DENSE = 1  # of the kinds of quantized weights: every integer is there, in its own bits


@dataclass(frozen=True)
class Stored:
    """A convolution's quantized weight: `buffer` and `scales` are views into `file`, to be read and written."""

    file: Path
    buffer: np.ndarray
    scales: np.ndarray
    bits: int

    def put(self, integers: np.ndarray, scales: np.ndarray) -> None:
        """Write unsigned integers [out, in] and scales in the file's order. Raises `ExportError` where sizes differ."""
        rows = integers.reshape(-1, 8 // self.bits)
        packed = np.zeros(len(rows), np.uint8)
        for place in range(rows.shape[1]):
            packed |= rows[:, place] << (8 - self.bits * (place + 1))
        begin = self._integers_begin()
        if len(self.buffer) - begin != len(packed) or len(self.scales) != scales.size:
            raise ExportError(f"{self.file.name} holds a weight in another form than clipq knows; use another MNN.")
        self.buffer[begin:] = packed
        self.scales[:] = scales.reshape(-1).astype(np.float32)

    def _integers_begin(self) -> int:
        """Behind the number of dimensions, two of them in 2 or 4 bytes, the number of values, and those."""
        values = 1 << self.bits
        for width in (2, 4):
            place = 1 + 2 * width
            known = np.arange(-values // 2, values // 2).astype(np.int8)
            head = self.buffer[place : place + 1 + values]
            if self.buffer[0] == 2 and head[0] == values % 256 and np.array_equal(head[1:].view(np.int8), known):
                return place + 1 + values
        raise ExportError(f"{self.file.name} holds a weight in another form than clipq knows; use another MNN.")


class MnnFile:
    """The file at `path`, mapped; with `write`, what is put into views of it is put into the file.

    Raises `ExportError` for what is no .mnn file, or a damaged one, as far as these fields go.
    """

    def __init__(self, path: Path, write: bool = False):
        self.path, self._mode = path, "r+" if write else "r"
        try:
            self._bytes = np.memmap(path, np.uint8, self._mode)
            self._net = self._indirect(0)
            self.code = self._text(self._field(self._net, _NET_CODE))
            self._operators = [self._indirect(at) for at in self._vector(self._field(self._net, _NET_OPERATORS), 4)]
            self._check_ends()
        except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
            raise ExportError(f"{path} is no .mnn file, or a damaged one; export the model again.") from error

    def weights(self) -> Mapping[str, Stored]:
        """The quantized weights, by the name of the operator."""
        return dict(self._weights())

    def _weights(self) -> Iterator[tuple[str, Stored]]:
        for operator in self._operators:
            kind = self._field(operator, _OP_MAIN_TYPE)
            if kind is None or self._bytes[kind] != _CONVOLUTION:
                continue
            convolution = self._indirect(self._field(operator, _OP_MAIN))
            if (quantized := self._field(convolution, _CONV_QUANTIZED)) is None:
                continue
            quantized = self._indirect(quantized)
            if self._number(quantized, _QUANTIZED_TYPE) != _DENSE:
                continue
            buffer, scales = self._parts(convolution, quantized)
            stored = Stored(self.path, buffer, scales, self._number(quantized, _QUANTIZED_BITS))
            yield self._text(self._field(operator, _OP_NAME)), stored

    def _parts(self, convolution: int, quantized: int) -> tuple[np.ndarray, np.ndarray]:
        """Buffer and scales: in the file, or in the one beside it."""
        buffer, scales = (self._field(quantized, one) for one in (_QUANTIZED_BUFFER, _QUANTIZED_SCALES))
        if buffer is not None and scales is not None:
            return self._view(buffer, 1), self._view(scales, 4).view(np.float32)
        places = self._view(self._field(convolution, _CONV_EXTERNAL), 8).view(np.int64)
        begin, middle, end = int(places[0]), int(places[0] + places[1]), int(places[0] + places[1] + places[2])
        beside = np.memmap(f"{self.path}{WEIGHTS}", np.uint8, self._mode)
        return beside[begin:middle], beside[middle:end].view(np.float32)

    def _check_ends(self) -> None:
        """A file that was cut ends before what its last tables point to; every operator has a name in it."""
        if not self._operators:
            raise ValueError("no operators")
        for operator in self._operators:
            self._field(operator, _OP_MAIN)
            if (name := self._field(operator, _OP_NAME)) is not None:
                self._text(name)

    def _unpack(self, form: str, at: int) -> int:
        if at < 0:
            raise IndexError(at)
        return struct.unpack_from(f"<{form}", self._bytes, at)[0]

    def _indirect(self, at: int) -> int:
        return at + self._unpack("I", at)

    def _field(self, table: int, number: int) -> int | None:
        """Where a field of `table` lies, or None where it has its default."""
        layout = table - self._unpack("i", table)
        place = 4 + 2 * number
        offset = self._unpack("H", layout + place) if place < self._unpack("H", layout) else 0
        return table + offset if offset else None

    def _number(self, table: int, field: int) -> int:
        at = self._field(table, field)
        return 0 if at is None else self._unpack("i", at)

    def _vector(self, at: int | None, size: int) -> range:
        """Where the items of the vector at `at` lie."""
        if at is None:
            return range(0)
        begin = self._indirect(at)
        found = range(begin + 4, begin + 4 + size * self._unpack("I", begin), size)
        if found.stop > len(self._bytes):
            raise IndexError(found.stop)
        return found

    def _view(self, at: int | None, size: int) -> np.ndarray:
        if at is None:
            raise IndexError(at)
        items = self._vector(at, size)
        return self._bytes[items.start : items.stop]

    def _text(self, at: int | None) -> str:
        return "" if at is None else bytes(self._view(at, 1)).decode()
