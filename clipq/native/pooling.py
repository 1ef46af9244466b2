"""SigLIP's attention pool (Zhai et al., arXiv:2303.15343; timm's `AttentionPoolLatent`) in the native library."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import steps
from .blocks import ACTIVATIONS
from .tensors import Tensors


class AttentionPool:
    """One learned query over all tokens of a picture, a projection, and an MLP around which its input is added.

    Description: query (a name), q, kv, proj, fc1, fc2 (linears), norm, heads, activation.
    """

    def __init__(self, tensors: Tensors, table: Any, width: int):
        self._heads = tensors.number(table, "heads", 1, width)
        if width % self._heads:
            raise tensors.wrong(f"a width of {width} is not divided by {self._heads} heads")
        query = tensors.vector(tensors.part(table, "query"), 1, width)
        q = steps.Linear(tensors.matrix(tensors.part(table, "q"), width, width))
        self._query = np.ascontiguousarray(q(query, 1)[0])  # the same for every picture
        self._kv = steps.Linear(tensors.matrix(tensors.part(table, "kv"), 2 * width, width))
        self._proj = steps.Linear(tensors.matrix(tensors.part(table, "proj"), width, width))
        self._norm = tensors.norm(tensors.part(table, "norm"), width)
        fc1 = tensors.matrix(tensors.part(table, "fc1"), -1, width)
        self._fc1 = steps.Linear(fc1, tensors.one_of(table, "activation", ACTIVATIONS))
        self._fc2 = steps.Linear(tensors.matrix(tensors.part(table, "fc2"), width, len(fc1.weight)))

    def __call__(self, rows: np.ndarray, batch: int, threads: int) -> np.ndarray:
        """[batch * tokens, width] to [batch, width]."""
        pooled = steps.pool_attention(self._query, self._kv(rows, threads), batch, self._heads, threads)
        x = self._proj(pooled, threads)
        return x + self._fc2(self._fc1(steps.layer_norm(x, self._norm, threads), threads), threads)
