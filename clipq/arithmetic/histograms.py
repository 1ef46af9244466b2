"""A histogram of any numbers, in bounded memory and one pass: the same one however the numbers come.

Bins are as wide as a power of two and begin at its multiples, so that two neighbours join into one exactly: where a
wider range comes, bins are joined in pairs. The result is the histogram of all numbers at the finest width that their
range allows, whatever the batches were and whichever came first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import QuantizationError

MOST_BINS = 16384
_CHUNK = 1 << 17  # values counted at a time: what that needs stays in the cache
_FLOAT32 = (0, 126)  # powers of two that scale every float32 exactly, as far as it does not overflow


@dataclass
class Histogram:
    """`counts` (float64 [bins], whole numbers) of values in [i, i + 1) * 2^exponent, of i from `first` on.

    `low` and `high` are the least and the largest value; empty before the first values.
    """

    counts: Tensor | None = None
    first: int = 0
    exponent: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: Tensor, weights: Tensor | None = None) -> None:
        """Count `values` (floats, any shape), each as one or as its weight (of the same shape, not negative).

        Raises `QuantizationError` if one is not finite.
        """
        values = values.detach().reshape(-1).float()
        if values.numel() == 0:
            return
        low, high = (float(end) for end in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise QuantizationError("inputs on the calibration data are not finite; look for what makes them so.")
        self._cover(low, high)
        weights = None if weights is None else weights.detach().reshape(-1).cpu().double()
        for start in range(0, len(values), _CHUNK):
            part = slice(start, start + _CHUNK)
            places, by = self._places(values[part]).cpu(), None if weights is None else weights[part]
            self.counts += torch.bincount(places, by, minlength=len(self.counts))

    def _places(self, values: Tensor) -> Tensor:
        """The bin of each value: the value over the bins' width, exactly, and rounded down."""
        ends = (self.first, self.first + len(self.counts))
        if _FLOAT32[0] <= -self.exponent <= _FLOAT32[1] and max(map(abs, ends)) < 1 << 30:
            return (values * math.ldexp(1.0, -self.exponent)).floor_().int().sub_(self.first)
        return (values.cpu().double() * math.ldexp(1.0, -self.exponent)).floor_().long().sub_(self.first)

    def merge(self, other: Histogram) -> None:
        """Add all that `other` has counted."""
        if other.counts is None:
            return
        self._cover(other.low, other.high, other.exponent)
        counts, first = _joined(other.counts, other.first, self.exponent - other.exponent)
        self.counts[first - self.first : first - self.first + len(counts)] += counts

    def centers(self) -> Tensor:
        """float64 [bins]: the middle of each bin, within the range of what was counted."""
        middles = torch.arange(len(self.counts), dtype=torch.float64) + (self.first + 0.5)
        return (middles * math.ldexp(1.0, self.exponent)).clamp(self.low, self.high)

    def quantile(self, share: float) -> float:
        """The value below which `share` of the values lie, as if they were even within each bin."""
        sums = self.counts.cumsum(0)
        wanted = share * float(sums[-1])
        place = min(int(torch.searchsorted(sums, wanted)), len(sums) - 1)
        inside = (wanted - float(sums[place] - self.counts[place])) / max(float(self.counts[place]), 1.0)
        return min(max(math.ldexp(self.first + place + inside, self.exponent), self.low), self.high)

    def _cover(self, low: float, high: float, exponent: int | None = None) -> None:
        """Make room for values from `low` to `high`, and be no finer than `exponent`."""
        low, high = min(low, self.low), max(high, self.high)
        finest = _finest(low, high)
        if self.counts is not None:
            finest = max(finest, self.exponent)
        finest = finest if exponent is None else max(finest, exponent)
        first, last = (math.floor(math.ldexp(end, -finest)) for end in (low, high))
        counts = torch.zeros(last - first + 1, dtype=torch.float64)
        if self.counts is not None:
            own, at = _joined(self.counts, self.first, finest - self.exponent)
            counts[at - first : at - first + len(own)] = own
        self.counts, self.first, self.exponent, self.low, self.high = counts, first, finest, low, high


def _finest(low: float, high: float) -> int:
    """The least exponent at which at most `MOST_BINS` bins cover `low` to `high`; that of one value's own size for one.

    Not below what float64 scales exactly.
    """
    reach = max(high - low, max(abs(low), abs(high)) * 2.0**-40, 2.0**-900)
    exponent = math.frexp(reach / MOST_BINS)[1] - 1
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= MOST_BINS:
        exponent += 1
    return exponent


def _joined(counts: Tensor, first: int, times: int) -> tuple[Tensor, int]:
    """`counts` from the bin `first` on, their bins joined in pairs `times` times; the new first bin."""
    if times == 0:
        return counts, first
    places = (torch.arange(len(counts)) + first) >> min(times, 62)
    start = int(places[0])
    return torch.zeros(int(places[-1]) - start + 1, dtype=counts.dtype).index_add_(0, places - start, counts), start
