"""Stacks of transformer blocks in the native library, with torch's tensors: see `clipq.native.blocks`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from ..native import blocks
from ..native.blocks import Block


def pack_block(weights: Block, path: str | None = None) -> Tensor:
    """As `clipq.native.blocks.pack_block`: uint8 [bytes]."""
    return torch.from_numpy(blocks.pack_block(weights, path))


def run_blocks(x: Tensor, offsets: Tensor, blocks: Sequence[Tensor], causal: bool, keep: Tensor | None) -> Tensor:
    """`x` [rows, width] through packed blocks; see `clipq::blocks` in clipq/kernels/ops.py."""
    pointers = (ctypes.c_void_p * len(blocks))(*(block.data_ptr() for block in blocks))
    return run_packed(x, offsets, pointers, causal, keep)


def run_packed(x: Tensor, offsets: Tensor, packed: ctypes.Array, causal: bool, keep: Tensor | None) -> Tensor:
    """As `run_blocks`, with the blocks' addresses."""
    rows = x.detach().float().contiguous().numpy()
    kept = None if keep is None else keep.contiguous().numpy()
    y = blocks.run_blocks(torch.get_num_threads(), packed, rows, offsets.contiguous().numpy(), causal, kept)
    return torch.from_numpy(y).to(x.dtype)
