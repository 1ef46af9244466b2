"""Attention of rows within their sequences, by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .sequences import Rotary, Sequences

Norm = Callable[[Tensor], Tensor]


class Heads(Protocol):
    """What attention needs to know of a `transformer.Block`."""

    heads: int
    rotation: str
    q_norm: Norm | None
    k_norm: Norm | None


class Attention:
    """Attention of rows within their sequences; the indices it needs are made once for all blocks."""

    def __init__(self, sequences: Sequences, causal: bool, device: torch.device):
        self.batch, self.causal, self.mask = len(sequences), causal, None
        self.slots = self.places = None
        self.rotary = sequences.rotary
        if not sequences.uniform:
            self.slots, self.places = sequences.slots.to(device), sequences.places.to(device)
        if sequences.last_unseen or not (sequences.uniform or causal):
            # A causal row never sees what stands after its sequence.
            inside = torch.arange(sequences.longest) < sequences.seen[:, None]
            self.mask = inside[:, None, None, :].to(device)
        if causal and self.mask is not None:
            before = torch.ones(sequences.longest, sequences.longest, dtype=torch.bool, device=device).tril()
            self.mask, self.causal = self.mask & before, False

    def __call__(self, block: Heads, projected: list[Tensor]) -> Tensor:
        q, k, v = _by_heads(projected, 3, self.slots, self.batch, block.heads)
        q, k = _turned(block, q, block.q_norm, self.rotary), _turned(block, k, block.k_norm, self.rotary)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.causal)
        rows = _by_rows(y)
        return rows if self.places is None else rows.index_select(0, self.places)


class KeptAttention:
    """Attention of one row of each sequence, or of some sequences, to the rows that it sees."""

    def __init__(self, sequences: Sequences, causal: bool, rows: Tensor, device: torch.device):
        self.batch, self.slots, self.mask = len(rows), None, None
        self.rotary, self.places = sequences.rotary, None
        one_each = len(rows) == len(sequences)
        if one_each and sequences.uniform and not causal and self.rotary is None:
            return
        which = slice(None) if one_each else torch.searchsorted(sequences.offsets, rows.contiguous(), right=True) - 1
        self.places = rows - sequences.offsets[:-1][which]
        seen = sequences.seen[which]
        seen = seen.minimum(self.places + 1) if causal else seen
        if not one_each or not sequences.uniform:
            self.slots = sequences.slots.view(-1, sequences.longest)[which].flatten().to(device)
        if not bool((seen == sequences.longest).all()):
            self.mask = (torch.arange(sequences.longest) < seen[:, None])[:, None, None, :].to(device)

    def __call__(self, block: Heads, queries: Tensor, others: list[Tensor]) -> Tensor:
        (q,) = _by_heads([queries], 1, None, self.batch, block.heads)
        k, v = _by_heads(others, 2, self.slots, self.batch, block.heads)
        q = _turned(block, q, block.q_norm, self.rotary, self.places)
        k = _turned(block, k, block.k_norm, self.rotary)
        return _by_rows(F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask))


def _by_heads(matrices: list[Tensor], parts: int, slots: Tensor | None, batch: int, heads: int) -> list[Tensor]:
    """`parts` of [batch, heads, tokens, width / heads], which lie in [rows, parts * width] or in matrices of their own.

    `slots`: the row for each of [batch * tokens]; without it the rows are these, and nothing is copied.
    """
    each, found = parts // len(matrices), []
    for rows in matrices:
        rows = rows if slots is None else rows.index_select(0, slots)
        found += rows.view(batch, -1, each, heads, rows.shape[-1] // (each * heads)).permute(2, 0, 3, 1, 4).unbind(0)
    return found


def _turned(block: Heads, x: Tensor, norm: Norm | None, rotary: Rotary | None, places: Tensor | None = None) -> Tensor:
    """Queries or keys [batch, heads, tokens, head] through their norm, and turned by their places.

    `places`: int64 [batch], of the one token of each sequence; without it the tokens stand one after the other.
    """
    x = x if norm is None else norm(x)
    if rotary is None or block.rotation == "none":
        return x
    if places is None:
        start, tables = rotary.prefix, [table[: x.shape[2] - rotary.prefix] for table in (rotary.cos, rotary.sin)]
        return torch.cat([x[:, :, :start], _rotated(x[:, :, start:], *tables, block.rotation)], dim=2)
    inside = (places >= rotary.prefix).to(x.device)[:, None, None, None]
    rows = (places - rotary.prefix).clamp(min=0).to(rotary.cos.device)
    tables = [table[rows][:, None, None] for table in (rotary.cos, rotary.sin)]
    return torch.where(inside, _rotated(x, *tables, block.rotation), x)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, rotation: str) -> Tensor:
    if rotation == "pairs":
        other = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).reshape(x.shape)
    else:
        first, second = x.chunk(2, dim=-1)
        other = torch.cat((-second, first), dim=-1)
    return (x * cos + other * sin).to(x.dtype)


def _by_rows(y: Tensor) -> Tensor:
    """[batch, heads, tokens, head] to [batch * tokens, heads * head]."""
    return y.transpose(1, 2).reshape(y.shape[0] * y.shape[2], -1)
