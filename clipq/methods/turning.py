"""Turning each head's values: the same function, from weights and activations that are easier to round.

Attention mixes a head's values v by weights that do not depend on them, so an orthogonal R can be multiplied into the
value projection and its transpose into the output projection: R^T (sum of w R v) = sum of w v. What was large in a few
channels is then spread over the head's width (QuaRot, Ashkboos et al., arXiv:2404.00456, does so for language models).
"""

from __future__ import annotations

from torch import Tensor

from ..arithmetic.rotation import orthogonal
from ..towers.transformer import Block
from .work import Work


def turn_values(work: Work) -> None:
    """Multiply R into the value projections and its transpose into the output projections of all plain blocks.

    Not where a norm stands between the two, which is another function of turned values.
    """
    for block in work.blocks():
        if block.attn_norm is None:
            _turn(work, block)


def _turn(work: Work, block: Block) -> None:
    values, output = work.floats[block.qkv[-1]], work.floats[block.out_proj]
    width = output.weight.shape[1]
    turn = orthogonal(width // block.heads)
    weight, bias = values.weight.clone(), None if values.bias is None else values.bias.clone()
    for part in (weight, bias):
        if part is not None:
            part[-width:] = _by_heads(turn, part[-width:], block.heads)
    values.weight, values.bias = weight, bias
    output.weight = _by_heads(turn, output.weight.T, block.heads).T.contiguous()


def _by_heads(turn: Tensor, rows: Tensor, heads: int) -> Tensor:
    """R times the rows [heads * head, ...] of each head."""
    each = rows.double().reshape(heads, len(turn), -1)
    return (turn.to(rows.device) @ each).reshape(rows.shape).to(rows.dtype)
