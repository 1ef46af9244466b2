"""Rows of a matrix read from a place in a file, block by block: a mapped file would stay in memory as it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .index import ROWS

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

_SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I8": "int8",
    "U8": "uint8",
}
"""torch's names of the dtypes that vectors are of."""
_MAX_HEADER = 100 << 20


@dataclass(frozen=True)
class Matrix:
    """`shape` [rows, columns] of torch's `dtype` at `offset` of a file, row by row, little-endian."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def blocks(self, size: int | None = None) -> Iterator[Tensor]:
        """[k, columns] in order. Raises `DataError` for a file that ends too early."""
        import torch

        rows, columns = self.shape
        size, dtype = size or ROWS, getattr(torch, self.dtype)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for start in range(0, rows, size):
                count = min(size, rows - start)
                content = bytearray(count * columns * dtype.itemsize)
                if file.readinto(content) != len(content):
                    raise DataError(f"{self.path} ends before row {start + count} of {rows}; it is cut off.")
                yield torch.frombuffer(content, dtype=dtype).reshape(count, columns)


def safetensors_header(path: Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The metadata, the entries by name, and where the tensors begin. Raises `ValueError` for no such file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= _MAX_HEADER:
            raise ValueError(f"a header of {length} bytes")
        entries = json.loads(file.read(length))
    return entries.pop("__metadata__", {}), entries, 8 + length


def safetensors_matrix(path: Path, entry: dict[str, Any], start: int) -> Matrix:
    """Raises `DataError` for a tensor that is no matrix of numbers."""
    kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    found = _SAFETENSORS.get(kind)
    if found is None or len(shape) != 2 or prod(shape) * _bytes(found) != end - begin:
        raise DataError(f"{path}: a tensor of {kind} {list(shape)} is no matrix of vectors.")
    return Matrix(path, start + begin, shape, found)


def _bytes(dtype: str) -> int:
    import torch

    return getattr(torch, dtype).itemsize


def npy_matrix(path: Path) -> Matrix | None:
    """Of a .npy file; None for one whose bytes are in another order. Raises `ValueError` for no such file."""
    from numpy.lib import format

    with path.open("rb") as file:
        version = format.read_magic(file)
        read = format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        offset = file.tell()
    plain = not fortran and dtype.isnative and dtype.name in _SAFETENSORS.values()
    return Matrix(path, offset, shape, dtype.name) if plain and len(shape) == 2 else None


def npy_blocks(path: Path) -> Iterator[numpy.ndarray]:
    """Blocks of any array, as numpy maps it."""
    import numpy

    array = numpy.load(path, mmap_mode="r", allow_pickle=False)
    native = array.dtype.newbyteorder("=")
    for start in range(0, len(array), ROWS):
        yield array[start : start + ROWS].astype(native)
