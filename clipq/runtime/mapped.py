"""The tensors of a safetensors file as numpy arrays over the mapped file."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..files.header import Header

_PLAIN = {"F32": np.float32, "F64": np.float64, "I8": np.int8, "U8": np.uint8, "I64": np.int64, "I32": np.int32}


class MappedFile:
    """Read-only arrays by name. Integers and float32 are views of the file, 16-bit floats copies as float32.

    Pages that were read count as this process's memory until they are given back (`release`); the system keeps them
    for the next who reads them.
    """

    def __init__(self, header: Header):
        self.header = header
        try:
            with header.path.open("rb") as file:
                self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{header.path} cannot be mapped: {error}.") from error

    def get(self, name: str) -> np.ndarray | None:
        """The tensor called `name`; None if there is none, or none of numbers that are computed with here."""
        entry: dict[str, Any] | None = self.header.tensors.get(name)
        if entry is None or (dtype := entry["dtype"]) not in (*_PLAIN, "F16", "BF16"):
            return None
        start, end = (self.header.data_start + offset for offset in entry["data_offsets"])
        raw = np.frombuffer(self._memory, np.uint8, end - start, start)
        if dtype == "F16":
            values = raw.view(np.float16).astype(np.float32)
        elif dtype == "BF16":  # the upper half of a float32
            values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.view(_PLAIN[dtype])
        return values.reshape(entry["shape"])

    def release(self) -> None:
        """Give the pages back that were read so far; reading them again is possible, and fetches them again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._memory.madvise(mmap.MADV_DONTNEED)
