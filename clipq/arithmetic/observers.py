"""What range static activations get: each observer sees the values of a tensor batch by batch, and then says it.

One pass, memory that does not grow with the data, and `merge`, so that observers of parts of the data become that of
the whole. All but the moving average (whose point it is) say the same whatever the batches were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ..errors import QuantizationError
from .functional import qparams_of
from .histograms import Histogram
from .specs import QuantSpec


class Observer(Protocol):
    """`see` floats of any shape, then ask for the `bounds` that `spec` is to span; (0, 0) before the first values.

    `weighted`: it wants to know how much each value matters: `see(values, weights)`, both of one shape.
    """

    weighted: bool

    def see(self, values: Tensor) -> None: ...

    def merge(self, other: Observer) -> None: ...

    def bounds(self, spec: QuantSpec) -> tuple[float, float]: ...


def qparams(observer: Observer, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """float32 scale [1] and zero point [1] (whole numbers) for what `observer` saw.

    Raises `QuantizationError` if they span more than float32 can hold.
    """
    low, high = (torch.tensor([bound], dtype=torch.float32) for bound in observer.bounds(spec))
    scale, zero_point = qparams_of(low, high, spec)
    if not torch.isfinite(scale).all():
        raise QuantizationError("inputs on the calibration data span more than float32 can hold; mend the checkpoint.")
    return scale, zero_point


def _ends(values: Tensor) -> tuple[float, float]:
    low, high = (float(end) for end in torch.aminmax(values.detach().float()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise QuantizationError("inputs on the calibration data are not finite; look for what makes them so.")
    return low, high


class MinMax:
    """From the least to the largest value."""

    weighted = False

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def see(self, values: Tensor) -> None:
        if values.numel():
            low, high = _ends(values)
            self.low, self.high = min(self.low, low), max(self.high, high)

    def merge(self, other: MinMax) -> None:
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def bounds(self, spec: QuantSpec) -> tuple[float, float]:
        return (self.low, self.high) if self.low <= self.high else (0.0, 0.0)


class MovingAverage:
    """The exponential moving average of the batches' least and largest values (Jacob et al., arXiv:1712.05877)."""

    weighted = False
    keeps = 0.9  # of the average, when a batch comes

    def __init__(self) -> None:
        self.first = self.average = (0.0, 0.0)
        self.batches = 0

    def see(self, values: Tensor) -> None:
        if values.numel():
            ends = _ends(values)
            self.merge(_started(ends))

    def merge(self, other: MovingAverage) -> None:
        """As if the other's batches had come after one's own: its first one weighs less then than it did there."""
        if self.batches == 0:
            self.first, self.average = other.first, other.average
        else:
            weight = self.keeps**other.batches
            ends = zip(self.average, other.average, other.first, strict=True)
            self.average = tuple(theirs + weight * (own - first) for own, theirs, first in ends)
        self.batches += other.batches

    def bounds(self, spec: QuantSpec) -> tuple[float, float]:
        return self.average


def _started(ends: tuple[float, float]) -> MovingAverage:
    one = MovingAverage()
    one.first = one.average = ends
    one.batches = 1
    return one


class _ByHistogram:
    """What is found in the histogram of all values."""

    weighted = False

    def __init__(self) -> None:
        self.histogram = Histogram()

    def see(self, values: Tensor) -> None:
        self.histogram.add(values)

    def merge(self, other: _ByHistogram) -> None:
        self.histogram.merge(other.histogram)

    def bounds(self, spec: QuantSpec) -> tuple[float, float]:
        return (0.0, 0.0) if self.histogram.counts is None else self._found(spec)

    def _found(self, spec: QuantSpec) -> tuple[float, float]:
        raise NotImplementedError

    def _bins(self) -> tuple[Tensor, Tensor]:
        """The middles of the bins that hold something, and how much."""
        held = self.histogram.counts > 0
        return self.histogram.centers()[held], self.histogram.counts[held]

    def _reach(self, spec: QuantSpec) -> tuple[float, float]:
        """The whole range as `spec` spans it: with zero in it, and as far below as above if symmetric."""
        low, high = min(self.histogram.low, 0.0), max(self.histogram.high, 0.0)
        return (-max(-low, high), max(-low, high)) if spec.symmetric else (low, high)


class Percentile(_ByHistogram):
    """The middle 99.99 % of the values (Wu et al., arXiv:2004.09602); of their sizes, for a symmetric range."""

    share = 0.9999

    def _found(self, spec: QuantSpec) -> tuple[float, float]:
        if spec.symmetric:
            return self._sizes()
        tail = (1 - self.share) / 2
        return self.histogram.quantile(tail), self.histogram.quantile(1 - tail)

    def _sizes(self) -> tuple[float, float]:
        centers, counts = self._bins()
        sizes, order = centers.abs().sort()
        sums = counts[order].cumsum(0)
        place = min(int(torch.searchsorted(sums, self.share * float(sums[-1]))), len(sums) - 1)
        return -float(sizes[place]), float(sizes[place])


class LeastSquares(_ByHistogram):
    """The range whose rounding and saturation lose least in the mean square ("mse").

    Each end is moved in turn, to the best of factors of 2^(1/4) and then, twice, to the best of 2^(1/64) around it.
    """

    _coarse, _fine = 2.0 ** (-torch.arange(40) / 4), 2.0 ** (torch.arange(-16, 17) / 64)

    def _found(self, spec: QuantSpec) -> tuple[float, float]:
        low, high = self._reach(spec)
        centers, counts = self._bins()
        for factors in (self._coarse, self._fine, self._fine):
            if spec.symmetric:
                low, high = self._best(low * factors, high * factors, centers, counts, spec)
                continue
            low, high = self._best(torch.full_like(factors, low), high * factors, centers, counts, spec)
            low, high = self._best(low * factors, torch.full_like(factors, high), centers, counts, spec)
        return max(low, self._reach(spec)[0]), min(high, self._reach(spec)[1])

    @staticmethod
    def _best(lows: Tensor, highs: Tensor, centers: Tensor, counts: Tensor, spec: QuantSpec) -> tuple[float, float]:
        errors = torch.stack(
            [_squared_error(low, high, centers, counts, spec) for low, high in zip(lows, highs, strict=True)]
        )
        place = int(errors.argmin())
        return float(lows[place]), float(highs[place])


class Fisher(LeastSquares):
    """`LeastSquares` where an error counts as much as it changes the embedding: by the gradient's square ("fisher").

    The gradients are of a random direction of the embedding, so that their squares are the diagonal of its Fisher
    information (as PTQ4ViT, Yuan et al., arXiv:2111.12293, weighs by a Hessian). A tenth of all weight is even: rows
    that no embedding is read from are not given up.
    """

    weighted = True
    _even = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.weighed = Histogram()

    def see(self, values: Tensor, weights: Tensor | None = None) -> None:
        """`weights`: of the shape of `values`, not negative; none: all alike."""
        weights = torch.ones_like(values) if weights is None else weights
        if not torch.isfinite(weights).all():
            raise QuantizationError("gradients on the calibration data are not finite; look for what makes them so.")
        self.histogram.add(values)
        self.weighed.add(values, weights)

    def merge(self, other: Fisher) -> None:
        super().merge(other)
        self.weighed.merge(other.weighed)

    def _bins(self) -> tuple[Tensor, Tensor]:
        counts, weighed = self.histogram.counts, self.weighed.counts
        held, total = counts > 0, weighed.sum()
        even = counts / counts.sum()
        shares = even if total == 0 else weighed / total * (1 - self._even) + even * self._even
        return self.histogram.centers()[held], shares[held]


def _squared_error(low: Tensor, high: Tensor, centers: Tensor, counts: Tensor, spec: QuantSpec) -> Tensor:
    """The sum of |value - what is left of it|² for a range."""
    scale, zero_point = (one.double() for one in qparams_of(low.float(), high.float(), spec))
    q = (torch.round(centers / scale) + zero_point).clamp_(spec.qmin, spec.qmax)
    return (((q - zero_point) * scale - centers).square_() * counts).sum()


class Entropy(_ByHistogram):
    """The range whose rounded distribution tells least about values that it was not given (KL divergence).

    The upper end is moved in, then the lower one; both at once if the range is symmetric. As Migacz ("8-bit inference
    with TensorRT", GTC 2017) does for sizes: what lies beyond an end counts at the end, and a level's values are spread
    evenly over those of its bins that hold any.
    """

    _candidates, _least = 64, 1 / 64

    def _found(self, spec: QuantSpec) -> tuple[float, float]:
        low, high = self._reach(spec)
        factors = torch.linspace(0, math.log2(self._least), self._candidates).exp2().tolist()
        if spec.symmetric:
            return self._best([(low * factor, high * factor) for factor in factors], spec)
        low, high = self._best([(low, high * factor) for factor in factors], spec)
        return self._best([(low * factor, high) for factor in factors], spec)

    def _best(self, ranges: list[tuple[float, float]], spec: QuantSpec) -> tuple[float, float]:
        centers, counts = self._bins()
        losses = [_divergence(low, high, centers, counts, spec) for low, high in ranges]
        return ranges[min(range(len(losses)), key=losses.__getitem__)]


def _divergence(low: float, high: float, centers: Tensor, counts: Tensor, spec: QuantSpec) -> float:
    inside = (centers >= low) & (centers <= high)
    if not inside.any():
        return math.inf
    held = counts[inside]
    scale, zero_point = (one.double() for one in qparams_of(torch.tensor(low), torch.tensor(high), spec))
    level = (torch.round(centers[inside] / scale) + zero_point).clamp_(spec.qmin, spec.qmax).long() - spec.qmin
    levels = spec.qmax - spec.qmin + 1
    members = torch.bincount(level, minlength=levels).double()
    spread = (torch.zeros(levels, dtype=torch.float64).index_add_(0, level, held) / members.clamp(min=1))[level]
    wanted = held.clone()
    wanted[0] += counts[centers < low].sum()
    wanted[-1] += counts[centers > high].sum()
    wanted, spread = wanted / wanted.sum(), spread / spread.sum()
    return float((wanted * (wanted / spread).log()).sum())


OBSERVERS: Mapping[str, type[Observer]] = {
    "minmax": MinMax,
    "moving-average": MovingAverage,
    "percentile": Percentile,
    "mse": LeastSquares,
    "fisher": Fisher,
    "entropy": Entropy,
}
"""By the name that a scheme's step has after "observe-"."""
