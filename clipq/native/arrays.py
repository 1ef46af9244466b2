"""Memory for the native library: float32 and packed bytes, contiguous, at addresses that are multiples of 64."""

from __future__ import annotations

import numpy as np

_LINE = 64  # bytes of a cache line, and of the widest vector


def empty(*shape: int, dtype: type | np.dtype = np.float32) -> np.ndarray:
    """As `numpy.empty`, aligned."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def address(array: np.ndarray | None) -> int | None:
    """Where `array` begins, for ctypes; None of none."""
    return None if array is None else array.ctypes.data


def floats(values: np.ndarray) -> np.ndarray:
    """`values` as contiguous float32, themselves if they are."""
    return np.ascontiguousarray(values, np.float32)
