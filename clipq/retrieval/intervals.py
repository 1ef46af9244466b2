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
_AT_A_TIME = 1 << 22  # values drawn at a time; torch takes percentiles of 2^24 at most
_ENDS = (0.025, 0.975)

Interval = tuple[float, float, float]
"""A number, and the ends of its 95 % interval."""
Loose = tuple[float, float | None, float | None]
"""The same; None where so few queries tell no ends."""


def mean_interval(values: Tensor, draws: int = DRAWS, seed: int = 0) -> Interval:
    """The mean of `values` [q] over queries, with its interval."""
    values = values.double()
    means = torch.cat([values[drawn].mean(dim=1) for drawn in _draws(len(values), draws, seed)])
    return _with_ends(values.mean(), means)


def percentile_intervals(
    values: Tensor, shares: Sequence[float], draws: int = DRAWS, seed: int = 0
) -> tuple[Loose, ...]:
    """The percentiles `shares` (0 to 1) of `values` [q], each with its interval; linear between two values.

    No draw reaches beyond the smallest and the largest value. A percentile that may well lie there, as the extremes do
    and the 1st of fewer than 367 values, has no ends.
    """
    values, at = values.double(), torch.tensor(shares, dtype=torch.float64)
    found = torch.cat([values[drawn].quantile(at, dim=1) for drawn in _draws(len(values), draws, seed)], dim=1)
    ended = (_with_ends(one, row) for one, row in zip(values.quantile(at), found, strict=True))
    return tuple(
        one if _is_inside(share, len(values)) else (one[0], None, None)
        for share, one in zip(shares, ended, strict=True)
    )


def _is_inside(share: float, count: int) -> bool:
    """Whether it is all but certain (97.5 % on either side) that some of `count` values are beyond the percentile."""
    return max(share, 1 - share) ** count <= _ENDS[0]


def _draws(count: int, draws: int, seed: int) -> Iterator[Tensor]:
    """int64 [some, count]: which queries each draw has; the same draws whatever the values are."""
    for part in _drawn(count, draws, seed).split(max(1, _AT_A_TIME // max(1, count))):
        yield part.long()


@lru_cache(maxsize=1)  # a report has hundreds of numbers over the same queries
def _drawn(count: int, draws: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(count, (draws, count), generator=generator, dtype=torch.int32)


def _with_ends(value: Tensor, drawn: Tensor) -> Interval:
    low, high = drawn.quantile(torch.tensor(_ENDS, dtype=torch.float64)).tolist()
    return float(value), low, high
