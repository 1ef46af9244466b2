"""Attention pools with one learned query in the native library.

Of SigLIP (Zhai et al., arXiv:2303.15343) and timm's `AttentionPoolLatent`, with an MLP; without one, as CoCa's that is
contrasted (Yu et al., arXiv:2205.01917).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import steps
from .blocks import ACTIVATIONS, Norm
from .tensors import Tensors

_ROWS = 4096  # whose keys and values are in memory at a time, or those of one picture


@dataclass(frozen=True)
class Mlp:
    """x + fc2(activation(fc1(norm(x)))), without a norm where there is none."""

    norm: Norm | None
    fc1: steps.Linear
    activation: str
    fc2: steps.Linear

    def __call__(self, x: np.ndarray, threads: int) -> np.ndarray:
        """[batch, width] to the same."""
        normed = x if self.norm is None else steps.layer_norm(x, self.norm, threads)
        return x + self.fc2(self.fc1(normed, threads, self.activation), threads)


@dataclass(frozen=True)
class AttentionPool:
    """One query over all tokens of a picture, a projection and, if there is one, an MLP.

    `query`: float32 [width], projected. `kv`: tokens to keys and values side by side, [rows, 2 width]; `norm_keys` the
    norm before it. A picture's result is the same in any batch.
    """

    heads: int
    query: np.ndarray
    kv: steps.AnyLinear
    proj: steps.AnyLinear
    mlp: Mlp | None = None
    norm_keys: Norm | None = None

    def __call__(self, rows: np.ndarray, batch: int, threads: int) -> np.ndarray:
        """[batch * tokens, width] to [batch, width]."""
        tokens = len(rows) // batch
        group = max(1, _ROWS // tokens) * tokens
        parts = [self._attend(rows[start : start + group], tokens, threads) for start in range(0, len(rows), group)]
        x = self.proj(parts[0] if len(parts) == 1 else np.concatenate(parts), threads)
        return x if self.mlp is None else self.mlp(x, threads)

    def _attend(self, rows: np.ndarray, tokens: int, threads: int) -> np.ndarray:
        normed = rows if self.norm_keys is None else steps.layer_norm(rows, self.norm_keys, threads)
        return steps.pool_attention(self.query, self.kv(normed, threads), len(rows) // tokens, self.heads, threads)


def described_pool(tensors: Tensors, table: Mapping[str, Any], width: int) -> AttentionPool:
    """Of a description: query (a name), q, kv, proj, fc1, fc2 (linears), norm, heads, activation."""
    heads = tensors.number(table, "heads", 1, width)
    if width % heads:
        raise tensors.wrong(f"a width of {width} is not divided by {heads} heads")
    query = tensors.vector(tensors.part(table, "query"), 1, width)
    q = steps.Linear(tensors.matrix(tensors.part(table, "q"), width, width))
    fc1 = tensors.matrix(tensors.part(table, "fc1"), -1, width)
    fc2 = steps.Linear(tensors.matrix(tensors.part(table, "fc2"), width, len(fc1.weight)))
    norm, activation = (
        tensors.norm(tensors.part(table, "norm"), width),
        tensors.one_of(table, "activation", ACTIVATIONS),
    )
    return AttentionPool(
        heads,
        np.ascontiguousarray(q(query, 1)[0]),  # the same for every picture
        steps.Linear(tensors.matrix(tensors.part(table, "kv"), 2 * width, width)),
        steps.Linear(tensors.matrix(tensors.part(table, "proj"), width, width)),
        Mlp(norm, steps.Linear(fc1), activation, fc2),
    )
