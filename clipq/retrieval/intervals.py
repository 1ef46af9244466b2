"""Intervals by resampling queries: what another draw of as many queries could have given.

The percentile bootstrap: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. Equal values give
an interval of no width, which does not say that no query is different: with n queries up to 3 / n of all may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

DRAWS = 1000
_AT_A_TIME = 100
_ENDS = (0.025, 0.975)

Interval = tuple[float, float, float]
"""A number, and the ends of its 95 % interval."""


def mean_interval(values: Tensor, draws: int = DRAWS, seed: int = 0) -> Interval:
    """The mean of `values` [q] over queries, with its interval."""
    values = values.double()
    means = torch.cat([values[drawn].mean(dim=1) for drawn in _draws(len(values), draws, seed)])
    return _with_ends(values.mean(), means)


def percentile_intervals(
    values: Tensor, shares: Sequence[float], draws: int = DRAWS, seed: int = 0
) -> tuple[Interval, ...]:
    """The percentiles `shares` (0 to 1) of `values` [q], each with its interval; linear between two values."""
    values, at = values.double(), torch.tensor(shares, dtype=torch.float64)
    found = torch.cat([values[drawn].quantile(at, dim=1) for drawn in _draws(len(values), draws, seed)], dim=1)
    return tuple(_with_ends(one, row) for one, row in zip(values.quantile(at), found, strict=True))


def _draws(count: int, draws: int, seed: int) -> Iterator[Tensor]:
    """int64 [some, count]: which queries each draw has; the same draws whatever the values are."""
    for part in _drawn(count, draws, seed).split(_AT_A_TIME):
        yield part.long()


@lru_cache(maxsize=1)  # a report has hundreds of numbers over the same queries
def _drawn(count: int, draws: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(count, (draws, count), generator=generator, dtype=torch.int32)


def _with_ends(value: Tensor, drawn: Tensor) -> Interval:
    low, high = drawn.quantile(torch.tensor(_ENDS, dtype=torch.float64)).tolist()
    return float(value), low, high
