"""Stacks of transformer blocks in the native library, with torch's tensors: see `clipq.native.blocks`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..native import blocks
from ..native.blocks import Block, Rotary


def pack_block(weights: Block, path: str | None = None) -> Tensor:
    """As `clipq.native.blocks.pack_block`: uint8 [bytes]."""
    return torch.from_numpy(blocks.pack_block(weights, path))


def pointers(blocks: Sequence[Tensor]) -> ctypes.Array:
    """The addresses of packed blocks; whoever runs them holds on to the blocks."""
    return (ctypes.c_void_p * len(blocks))(*(block.data_ptr() for block in blocks))


def run_packed(
    x: Tensor,
    offsets: Tensor,
    packed: ctypes.Array,
    mask: int,
    keep: Tensor | None,
    rotary: tuple[Tensor, Tensor, int] | None = None,
) -> Tensor:
    """`x` [rows, width] through packed blocks, given by their addresses; see `clipq::blocks` in clipq/kernels/ops.py.

    `mask`: as `clipq.native.blocks.run_blocks` takes it. `rotary`: cos and sin [tokens, width / heads], and how many
    rows of a sequence stay as they are.
    """
    rows = x.detach().float().contiguous().numpy()
    kept = None if keep is None else keep.contiguous().numpy()
    tables = None if rotary is None else Rotary(*map(_as_floats, rotary[:2]), rotary[2])
    y = blocks.run_blocks(torch.get_num_threads(), packed, rows, offsets.contiguous().numpy(), mask, kept, tables)
    return torch.from_numpy(y).to(x.dtype)


def _as_floats(table: Tensor) -> np.ndarray:
    return table.detach().float().contiguous().numpy()
