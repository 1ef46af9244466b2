"""Values turned at random within each head: the same function, with no channel that stands out, so int8 loses less.

The idea is QuaRot's (Ashkboos et al., 2024): what the value matrix turns, the output matrix turns back.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def turn_values(blocks: Iterable[nn.Module], seed: int = 0) -> None:
    """Multiply each head's values by a random orthogonal matrix, and its columns of the output by the inverse."""
    generator = torch.Generator().manual_seed(seed)
    for block in blocks:
        attention = block.attn
        width, size = attention.embed_dim, attention.head_dim
        for start in range(0, width, size):
            turn = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
            values, columns = slice(2 * width + start, 2 * width + start + size), slice(start, start + size)
            for tensor in (attention.in_proj_weight, attention.in_proj_bias):
                tensor[values] = turn @ tensor[values]
            attention.out_proj.weight[:, columns] = attention.out_proj.weight[:, columns] @ turn.T
