"""The pre-norm transformer block (Vaswani et al., arXiv:1706.03762; Xiong et al., arXiv:2002.04745) over rows.

All tokens of a batch are rows of one matrix, sequence after sequence. So sequences need no padding to a common length,
and the last block can be computed for the rows alone that are used afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rows = Callable[[Tensor], Tensor]
"""Maps rows [n, in] to rows [n, out]: a module, or what stands in for one."""


@dataclass(frozen=True)
class Sequences:
    """Where sequences lie in the rows of one matrix: rows offsets[i]:offsets[i + 1] are sequence i.

    `offsets`: int64 [batch + 1] on the CPU. `longest`: the most rows of a sequence. `uniform`: all have that many.
    """

    offsets: Tensor
    longest: int
    uniform: bool

    @classmethod
    def equal(cls, batch: int, tokens: int) -> Sequences:
        """`batch` sequences of `tokens` rows each."""
        return cls(torch.arange(0, (batch + 1) * tokens, tokens), tokens, True)

    @classmethod
    def of_lengths(cls, lengths: Tensor) -> Sequences:
        """Sequences of these lengths (int64 [batch], at least 1 each)."""
        lengths = lengths.cpu()
        shortest, longest = (int(bound) for bound in lengths.aminmax())
        return cls(F.pad(lengths.cumsum(0), (1, 0)), longest, shortest == longest)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Tensor:
        """int64 [batch]."""
        return self.offsets.diff()

    @cached_property
    def slots(self) -> Tensor:
        """The row of each place of a [batch, longest] grid, flat; places after a sequence's end repeat its last row."""
        places = torch.arange(self.longest).expand(len(self), -1)
        return (self.offsets[:-1, None] + places.minimum(self.lengths[:, None] - 1)).flatten()

    @cached_property
    def places(self) -> Tensor:
        """The place of each row in that grid: the inverse of `slots`."""
        return (torch.arange(self.longest) < self.lengths[:, None]).flatten().nonzero().flatten()


class InProjection:
    """The query, key and value projection of an attention that holds it as a bare `in_proj_weight` [3 width, width]."""

    def __init__(self, attention: nn.Module):
        self.attention = attention

    @property
    def weight(self) -> Tensor:
        return self.attention.in_proj_weight

    @property
    def bias(self) -> Tensor | None:
        return self.attention.in_proj_bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Block:
    """The modules of one block; never their tensors, which `.to()`, `load_state_dict` and the like may replace.

    `qkv`: one projection to [n, 3 width], or three to [n, width]. `ls_1`, `ls_2`: the layer scales, or None.
    """

    ln_1: Rows
    qkv: tuple[Rows, ...]
    out_proj: Rows
    ln_2: Rows
    fc1: Rows
    act: Rows
    fc2: Rows
    heads: int
    ls_1: Rows | None = None
    ls_2: Rows | None = None


def run_blocks(
    blocks: Sequence[Block], x: Tensor, sequences: Sequences, causal: bool, keep: Tensor | None = None
) -> Tensor:
    """Rows [rows, width] through `blocks`, one after the other; attention stays within each of `sequences`.

    `causal`: a row sees only rows of its sequence up to itself. `keep`: int64 rows (one or more), ascending, at most
    one of a sequence; then [len(keep), width] comes back, the same as those rows of the whole result, and in the last
    block only they get a query, attention, output projection and MLP.
    """
    attention = _Attention(sequences, causal, x.device)
    for block in blocks if keep is None else blocks[:-1]:
        heads = attention(_project(block, block.ln_1(x)), block.heads)
        x = _mlp(block, _add(x, block.out_proj(heads), block.ls_1))
    if keep is None:
        return x
    return _last_block(blocks[-1], x, _KeptAttention(sequences, causal, keep.cpu(), x.device), keep.to(x.device))


def _last_block(block: Block, x: Tensor, attention: _KeptAttention, keep: Tensor) -> Tensor:
    queries, others = _project_kept(block, block.ln_1(x), keep)
    heads = attention(queries, others, block.heads)
    return _mlp(block, _add(x.index_select(0, keep), block.out_proj(heads), block.ls_1))


def _mlp(block: Block, x: Tensor) -> Tensor:
    return _add(x, block.fc2(block.act(block.fc1(block.ln_2(x)))), block.ls_2)


def _add(x: Tensor, change: Tensor, scale: Rows | None) -> Tensor:
    if scale is not None:
        change = scale(change)
    # In place where that is the same: a fresh matrix for each sum costs a small model more than the sum.
    return change.add_(x) if change.dtype == x.dtype and not change.requires_grad else x + change


def _project(block: Block, x: Tensor) -> list[Tensor]:
    """Queries, keys and values in one matrix [n, 3 width], or in three."""
    return [projection(x) for projection in block.qkv]


def _project_kept(block: Block, x: Tensor, keep: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Queries [len(keep), width] of the rows `keep`, and keys and values of all rows, in one matrix or in two."""
    if len(block.qkv) == 3:
        q, k, v = block.qkv
        return q(x.index_select(0, keep)), [k(x), v(x)]
    whole = block.qkv[0]
    if not isinstance(whole, InProjection) and type(whole) is not nn.Linear:  # a part of it cannot be computed
        q, k, v = whole(x).chunk(3, dim=-1)
        return q.index_select(0, keep), [k, v]
    sizes = [whole.weight.shape[0] // 3, whole.weight.shape[0] // 3 * 2]
    q_weight, kv_weight = whole.weight.split(sizes)
    q_bias, kv_bias = (None, None) if whole.bias is None else whole.bias.split(sizes)
    return F.linear(x.index_select(0, keep), q_weight, q_bias), [F.linear(x, kv_weight, kv_bias)]


class _Attention:
    """Attention of rows within their sequences; the indices it needs are made once for all blocks."""

    def __init__(self, sequences: Sequences, causal: bool, device: torch.device):
        self.batch, self.causal, self.mask = len(sequences), causal, None
        self.slots = self.places = None
        if not sequences.uniform:
            self.slots, self.places = sequences.slots.to(device), sequences.places.to(device)
            if not causal:  # a causal row never sees what stands after its sequence
                inside = torch.arange(sequences.longest) < sequences.lengths[:, None]
                self.mask = inside[:, None, None, :].to(device)

    def __call__(self, projected: list[Tensor], heads: int) -> Tensor:
        q, k, v = _by_heads(projected, 3, self.slots, self.batch, heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.causal)
        rows = _by_rows(y)
        return rows if self.places is None else rows.index_select(0, self.places)


class _KeptAttention:
    """Attention of one row of each sequence, or of some sequences, to the rows that it sees."""

    def __init__(self, sequences: Sequences, causal: bool, rows: Tensor, device: torch.device):
        self.batch, self.slots, self.mask = len(rows), None, None
        one_each = len(rows) == len(sequences)
        if one_each and sequences.uniform and not causal:
            return
        which = slice(None) if one_each else torch.searchsorted(sequences.offsets, rows.contiguous(), right=True) - 1
        seen = rows - sequences.offsets[:-1][which] + 1 if causal else sequences.lengths[which]
        if not one_each or not sequences.uniform:
            self.slots = sequences.slots.view(-1, sequences.longest)[which].flatten().to(device)
        if not bool((seen == sequences.longest).all()):
            self.mask = (torch.arange(sequences.longest) < seen[:, None])[:, None, None, :].to(device)

    def __call__(self, queries: Tensor, others: list[Tensor], heads: int) -> Tensor:
        (q,) = _by_heads([queries], 1, None, self.batch, heads)
        k, v = _by_heads(others, 2, self.slots, self.batch, heads)
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


def _by_rows(y: Tensor) -> Tensor:
    """[batch, heads, tokens, head] to [batch * tokens, heads * head]."""
    return y.transpose(1, 2).reshape(y.shape[0] * y.shape[2], -1)
