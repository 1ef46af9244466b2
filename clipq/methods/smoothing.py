"""Smoothing: what is large in a few channels of a LayerNorm's output is moved into the weights that read it.

SmoothQuant (Xiao et al., arXiv:2211.10438): dividing the norm's weight and bias by s and multiplying the columns of the
linears after it by s changes nothing but what is rounded. s = |x|^a / |w|^(1 - a) per channel; published strengths a
ruin some CLIPs, so each norm's is searched here by the error of the linears' own outputs, and "none" is among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..arithmetic import functional
from .work import Floats, Work

_STRENGTHS = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8)
_ROWS = 1024  # of the inputs, evenly taken from all that were seen, to compare strengths on
_SEEN = 64  # rows kept of each batch
_SMALLEST = 1e-5  # of a channel's largest weight or input: one that is never used is not divided by zero


@dataclass(frozen=True)
class _Pair:
    """A norm, and the linears that read what it gives, and nothing else does."""

    norm: nn.LayerNorm
    linears: tuple[Floats, ...]


def smooth(work: Work) -> None:
    """Smooth every norm of the plain blocks by the strength that leaves its linears the smallest error."""
    pairs = list(_pairs(work))
    seen = _rows_of(work, [pair.linears[0] for pair in pairs])
    for pair in pairs:
        _fold(work, pair, _best(pair, seen[pair.linears[0]]))


def _pairs(work: Work) -> Iterator[_Pair]:
    for block in work.blocks():
        for norm, linears in ((block.ln_1, block.qkv), (block.ln_2, block.fc1)):
            if isinstance(norm, nn.LayerNorm) and norm.weight is not None and norm.bias is not None:
                yield _Pair(norm, tuple(work.floats[linear] for linear in linears))


def _rows_of(work: Work, chosen: Sequence[Floats]) -> dict[Floats, Tensor]:
    """At most `_ROWS` of the rows that come to each of the `chosen`."""
    kept: dict[Floats, list[Tensor]] = {one: [] for one in chosen}

    def see(one: Floats, rows: Tensor) -> None:
        kept[one].append(rows[:: max(1, len(rows) // _SEEN)].clone())

    work.observe(chosen, see)
    whole = {one: torch.cat(parts) for one, parts in kept.items()}
    return {one: rows[:: max(1, len(rows) // _ROWS)] for one, rows in whole.items()}


def _best(pair: _Pair, rows: Tensor) -> Tensor:
    """The factors [width] by which the linears err the least."""
    candidates = [_factors(pair, rows, strength) for strength in _STRENGTHS]
    return min(candidates, key=lambda factors: _error(pair, rows, factors))


def _factors(pair: _Pair, rows: Tensor, strength: float) -> Tensor:
    if strength == 0:
        return torch.ones_like(rows[0])
    inputs = rows.abs().amax(0).clamp(min=_SMALLEST)
    weights = torch.stack([one.weight.abs().amax(0) for one in pair.linears]).amax(0).clamp(min=_SMALLEST)
    factors = inputs**strength / weights ** (1 - strength)
    return factors / factors.log().mean().exp()


def _error(pair: _Pair, rows: Tensor, factors: Tensor) -> float:
    """The squared error of all outputs when inputs and weights are rounded after smoothing, by the linears' specs."""
    total = 0.0
    for one in pair.linears:
        weight, inputs = one.weight * factors, rows / factors
        if one.layer.activations is not None:
            inputs = functional.fake_quantize(inputs, one.layer.activations)
        wanted = rows @ one.weight.T
        total += (inputs @ functional.fake_quantize(weight, one.layer.spec).T - wanted).square().sum().item()
    return total


def _fold(work: Work, pair: _Pair, factors: Tensor) -> None:
    work.replace(pair.norm, "weight", pair.norm.weight.float() / factors)
    work.replace(pair.norm, "bias", pair.norm.bias.float() / factors)
    for one in pair.linears:
        one.weight = one.weight * factors
