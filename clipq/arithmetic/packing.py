"""Integers of 4, 3 or 2 bits side by side in bytes: value j of a row has its bits j * bits to (j + 1) * bits - 1.

Bits are counted from the least significant one of the first byte on, so that 4 bits lie two in a byte, the first in the
lower half, 2 bits four in a byte, and 3 bits eight in three bytes. Each row begins with a byte of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_WORDS = {4: (2, 1), 3: (8, 3), 2: (4, 1)}
"""How many values fill how many bytes exactly."""


def packed_width(width: int, bits: int) -> int:
    """Bytes of a row of `width` values."""
    return (width * bits + 7) // 8


def pack(values: Tensor, bits: int) -> Tensor:
    """uint8 [rows, packed_width] of whole numbers [rows, width] from 0 to 2^bits - 1; unused bits are 0."""
    count, size = _WORDS[bits]
    dtype = torch.uint8 if size == 1 else torch.int32
    words = F.pad(values.to(dtype), (0, -values.shape[1] % count)).unflatten(1, (-1, count))
    word = torch.zeros_like(words[..., 0])
    for j in range(count):
        word |= words[..., j] << (bits * j)
    parts = [(word >> (8 * j)) & 255 for j in range(size)]
    return torch.stack(parts, -1).flatten(1)[:, : packed_width(values.shape[1], bits)].to(torch.uint8)


def unpack(packed: Tensor, bits: int, width: int) -> Tensor:
    """uint8 [rows, width]: the inverse of `pack`."""
    count, size = _WORDS[bits]
    parts = F.pad(packed, (0, -packed.shape[1] % size)).unflatten(1, (-1, size))
    word = parts[..., 0]
    for j in range(1, size):
        word = word | (parts[..., j].int() << (8 * j))
    mask = (1 << bits) - 1
    return torch.stack([(word >> (bits * j)) & mask for j in range(count)], -1).flatten(1)[:, :width].to(torch.uint8)
