"""Values that are no multiples of a scale: NF4's, and the centres of a weight's own clusters."""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor

_ROUNDS = 30  # of Lloyd's algorithm; its centres hardly move after ten
_OUTERMOST = 1 - (1 / 32 + 1 / 30) / 2
"""The probability whose quantile is the largest value of NF4, before all are divided by it."""


@cache
def nf4() -> Tensor:
    """float32 [16], ascending: the NormalFloat of Dettmers et al., arXiv:2305.14314, section 3 and appendix E.

    Quantiles of the normal distribution at equally spaced probabilities, eight above zero and seven below, and zero
    itself, divided so that they reach from -1 to 1.
    """
    above, below = (_quantiles(count) for count in (9, 8))
    values = torch.tensor([*(-value for value in below), 0.0, *above], dtype=torch.float64).sort().values
    return (values / values.max()).float()


def _quantiles(count: int) -> list[float]:
    """Those at `count` probabilities from the outermost one to a half, without the last, which is zero."""
    step = (_OUTERMOST - 0.5) / (count - 1)
    return [NormalDist().inv_cdf(_OUTERMOST - place * step) for place in range(count - 1)]


def kmeans(values: Tensor, count: int, importance: Tensor | None = None) -> Tensor:
    """float32 [rows, count], ascending: for each row of `values` [rows, n] the centres of `count` clusters.

    `importance`: what an error of each value weighs, of a shape that broadcasts; all the same without it. Lloyd's
    algorithm from equally filled clusters: the same centres every time. A cluster that empties keeps its centre.
    """
    weights = torch.ones_like(values) if importance is None else importance.expand_as(values)
    places = ((torch.arange(count, device=values.device) + 0.5) / count * values.shape[1]).long()
    centres = values.sort(dim=1).values[:, places.clamp(max=values.shape[1] - 1)].double()
    for _ in range(_ROUNDS):
        codes = nearest(values, centres)
        total = torch.zeros_like(centres).scatter_add_(1, codes, weights.double())
        summed = torch.zeros_like(centres).scatter_add_(1, codes, (weights * values).double())
        centres = torch.where(total > 0, summed / total.clamp(min=torch.finfo(torch.float64).tiny), centres)
        centres = centres.sort(dim=1).values
    return centres.float()


def nearest(values: Tensor, centres: Tensor) -> Tensor:
    """int64 of the shape of `values` [rows, n]: the place of the nearest of `centres` [rows or 1, count], ascending."""
    between = (centres[:, 1:] + centres[:, :-1]) / 2
    if len(between) == 1:
        return torch.bucketize(values.to(between.dtype), between[0])
    return torch.searchsorted(between, values.to(between.dtype).contiguous())
