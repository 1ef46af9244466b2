"""The pre-norm transformer block (Vaswani et al., arXiv:1706.03762; Xiong et al., arXiv:2002.04745) over rows.

All tokens of a batch are rows of one matrix, sequence after sequence. So sequences need no padding to a common length,
and the last block can be computed for the rows alone that are used afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention, KeptAttention
from .sequences import Sequences

Rows = Callable[[Tensor], Tensor]
"""Maps rows [n, in] to rows [n, out]: a module, or what stands in for one."""


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


class LayerScale:
    """A layer scale [width] that a block holds as a bare parameter."""

    def __init__(self, block: nn.Module, name: str):
        self.block, self._name = block, name

    @property
    def gamma(self) -> Tensor:
        return getattr(self.block, self._name)

    def __call__(self, x: Tensor) -> Tensor:
        return self.gamma * x


@dataclass(frozen=True)
class Block:
    """The modules of one block; never their tensors, which `.to()`, `load_state_dict` and the like may replace.

    `qkv`: one projection to [n, 3 width], or three to [n, width]. `ls_1`, `ls_2`: the layer scales, or None. `fc1`: one
    linear to [n, hidden]; or, of a gated MLP, two, or one to [n, 2 hidden] if `halves`: the first is activated, and
    multiplied with the second. `q_norm`, `k_norm`: of each head; `attn_norm`, `mlp_norm`: of what comes to `out_proj`
    and `fc2`. `rotation`: how queries and keys are turned where their sequences have a `Rotary`: "none", "pairs" of
    neighbours, or "halves" of a head.
    """

    ln_1: Rows
    qkv: tuple[Rows, ...]
    out_proj: Rows
    ln_2: Rows
    fc1: tuple[Rows, ...]
    act: Rows
    fc2: Rows
    heads: int
    ls_1: Rows | None = None
    ls_2: Rows | None = None
    q_norm: Rows | None = None
    k_norm: Rows | None = None
    attn_norm: Rows | None = None
    mlp_norm: Rows | None = None
    halves: bool = False
    rotation: str = "none"

    @property
    def linears(self) -> tuple[Rows, ...]:
        """All that multiplies by a matrix, in the order of the computation."""
        return (*self.qkv, self.out_proj, *self.fc1, self.fc2)

    @property
    def gated(self) -> bool:
        return self.halves or len(self.fc1) == 2


def run_blocks(
    blocks: Sequence[Block], x: Tensor, sequences: Sequences, causal: bool, keep: Tensor | None = None
) -> Tensor:
    """Rows [rows, width] through `blocks`, one after the other; attention stays within each of `sequences`.

    `causal`: a row sees only rows of its sequence up to itself. `keep`: int64 rows (one or more), ascending, at most
    one of a sequence; then [len(keep), width] comes back, the same as those rows of the whole result, and in the last
    block only they get a query, attention, output projection and MLP.
    """
    attention = Attention(sequences, causal, x.device)
    for block in blocks if keep is None else blocks[:-1]:
        heads = attention(block, _project(block, block.ln_1(x)))
        x = _mlp(block, _add(x, _project_heads(block, heads), block.ls_1))
    if keep is None:
        return x
    return _last_block(blocks[-1], x, KeptAttention(sequences, causal, keep.cpu(), x.device), keep.to(x.device))


def _last_block(block: Block, x: Tensor, attention: KeptAttention, keep: Tensor) -> Tensor:
    queries, others = _project_kept(block, block.ln_1(x), keep)
    heads = attention(block, queries, others)
    return _mlp(block, _add(x.index_select(0, keep), _project_heads(block, heads), block.ls_1))


def _project_heads(block: Block, heads: Tensor) -> Tensor:
    return block.out_proj(heads if block.attn_norm is None else block.attn_norm(heads))


def _mlp(block: Block, x: Tensor) -> Tensor:
    parts = [linear(y) for y in [block.ln_2(x)] for linear in block.fc1]
    if block.halves:
        parts = parts[0].chunk(2, dim=-1)
    inner = block.act(parts[0])
    if block.gated:
        inner = inner * parts[1]
    return _add(x, block.fc2(inner if block.mlp_norm is None else block.mlp_norm(inner)), block.ls_2)


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
