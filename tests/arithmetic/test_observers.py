"""Observers against what a dense float64 computation over all values at once says, on ordinary and adversarial data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from observer_cases import CASES, data, ends, parts
from torch import Tensor

from clipq.arithmetic import functional
from clipq.arithmetic.histograms import MOST_BINS
from clipq.arithmetic.observers import OBSERVERS, qparams
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import QuantizationError

SMALLEST = float(torch.finfo(torch.float32).tiny)  # a scale is never smaller
SYMMETRIC = QuantSpec(granularity="tensor", dynamic=False)
ASYMMETRIC = QuantSpec(False, "tensor", dynamic=False)
both = pytest.mark.parametrize("spec", [ASYMMETRIC, SYMMETRIC], ids=["asymmetric", "symmetric"])
each = pytest.mark.parametrize("name", OBSERVERS)


cases = pytest.mark.parametrize("case", CASES)


def seen(name: str, *batches: Tensor):
    observer = OBSERVERS[name]()
    for batch in batches:
        observer.see(batch)
    return observer


def squared_error(x: np.ndarray, low: float, high: float, spec: QuantSpec) -> float:
    """The definition of affine quantization in float64: what rounding and saturation lose."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(-low, high) / 127 if spec.symmetric else (high - low) / 255
    scale = max(scale, SMALLEST) if scale else 1.0
    zero = 0 if spec.symmetric else min(max(-128 - np.round(low / scale), -128), 127)
    q = np.clip(np.round(x / scale) + zero, -127 if spec.symmetric else -128, 127)
    return float((((q - zero) * scale - x) ** 2).sum())


@both
@cases
def test_least_squares_is_the_best_of_a_dense_grid(case: str, spec: QuantSpec) -> None:
    x = data(case)
    found = squared_error(x.double().numpy(), *seen("mse", x).bounds(spec), spec)
    values, (low, high) = x.double().numpy(), ends(x)
    lows = np.linspace(low, 0, 40) if low < 0 else [low]
    highs = np.linspace(high, 0, 40) if high > 0 else [high]
    best = min(squared_error(values, one, other, spec) for one in lows for other in highs)
    full = squared_error(values, low, high, spec)
    size = float((values**2).sum())
    assert found <= 1.02 * best + 1e-9 * size
    assert found <= full + 1e-9 * size


@both
@cases
def test_min_max_spans_all_and_saturates_nothing(case: str, spec: QuantSpec) -> None:
    x = data(case)
    observer = seen("minmax", *parts(x))
    assert observer.bounds(spec) == ends(x)
    scale, zero_point = qparams(observer, spec)
    expected = functional.choose_qparams(x, spec)
    assert torch.equal(scale, expected[0].flatten()) and torch.equal(zero_point, expected[1].flatten())


def test_the_moving_average_is_the_recurrence() -> None:
    batches = parts(data("outlier channel"))
    low, high = ends(batches[0])
    for batch in batches[1:]:
        one, other = ends(batch)
        low, high = 0.9 * low + 0.1 * one, 0.9 * high + 0.1 * other
    assert seen("moving-average", *batches).bounds(ASYMMETRIC) == pytest.approx((low, high), rel=1e-12)


@both
def test_the_percentile_leaves_out_the_share_it_says(spec: QuantSpec) -> None:
    x = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    x[:10] = 1000
    low, high = seen("percentile", x).bounds(spec)
    outside = float(((x < low) | (x > high)).double().mean())
    assert outside == pytest.approx(1e-4, abs=3e-5)
    if spec.symmetric:
        assert low == -high


def kl(values: np.ndarray, low: float, high: float, spec: QuantSpec, bins: int = 2000) -> float:
    """The divergence of the clipped values from their rounded ones, both by a histogram of `bins` over the range."""
    low, high = min(low, 0.0), max(high, 0.0)
    counts, edges = np.histogram(np.clip(values, low, high), bins, (low, high))
    inside, _ = np.histogram(values[(values >= low) & (values <= high)], bins, (low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    scale = max(-low, high) / 127 if spec.symmetric else (high - low) / 255
    levels = np.round(middles / scale)
    spread = np.zeros(bins)
    for level in np.unique(levels):
        members = (levels == level) & (counts > 0)
        spread[members] = inside[levels == level].sum() / max(members.sum(), 1)
    p, q = counts / counts.sum(), spread / spread.sum()
    held = p > 0
    return float((p[held] * np.log(p[held] / np.maximum(q[held], 1e-12))).sum())


@both
@pytest.mark.parametrize("case", ["normal", "after GELU", "outlier channel", "zeros but one"])
def test_entropy_is_among_the_best_of_a_grid(case: str, spec: QuantSpec) -> None:
    x = data(case)
    values, (low, high) = x.double().numpy().ravel(), ends(x)
    if spec.symmetric:
        low, high = -max(-low, high), max(-low, high)
    found = kl(values, *seen("entropy", x).bounds(spec), spec)
    worst = max(kl(values, low * factor, high * factor, spec) for factor in (1, 0.5, 0.1, 0.03))
    assert found <= kl(values, low, high, spec) + 0.05
    assert found < worst or worst < 1e-6


@both
@cases
def test_fisher_without_weights_is_least_squares(case: str, spec: QuantSpec) -> None:
    x = data(case)
    assert seen("fisher", x).bounds(spec) == pytest.approx(seen("mse", x).bounds(spec), rel=1e-9)


@both
def test_fisher_counts_what_matters(spec: QuantSpec) -> None:
    """Against a grid of ranges and the weighted error in float64; an outlier that does not matter is given up."""
    x = torch.randn(50_000, generator=torch.Generator().manual_seed(1))
    x[0] = 12
    weights = torch.rand(50_000, generator=torch.Generator().manual_seed(2))
    weights[0] = 0
    observer = OBSERVERS["fisher"]()
    for part in zip(x.split(7000), weights.split(7000), strict=True):
        observer.see(*part)
    w = (0.9 * weights.double() / weights.double().sum() + 0.1 / len(x)).sqrt().numpy()

    def error(low: float, high: float) -> float:
        scale, zero = functional.qparams_of(torch.tensor([low]), torch.tensor([high]), spec)
        left = functional.dequantize(functional.quantize(x, scale, zero, spec), scale, zero, spec)
        return float((((left - x).double().numpy() * w) ** 2).sum())

    low, high = observer.bounds(spec)
    assert high < 9 < seen("mse", x).bounds(spec)[1]
    grid = [(a, b) for a in np.linspace(-5, -0.5, 20) for b in np.linspace(1, 12, 60)]
    assert error(low, high) <= 1.02 * min(error(*ends) for ends in grid if not spec.symmetric or ends[1] > -ends[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(QuantizationError, match="gradients"):
        OBSERVERS["fisher"]().see(torch.ones(2), torch.tensor([1.0, bad]))


def test_a_fisher_observer_whose_weights_are_all_zero_counts_all_alike() -> None:
    observer = OBSERVERS["fisher"]()
    x = data("normal")
    observer.see(x, torch.zeros_like(x))
    assert observer.bounds(ASYMMETRIC) == pytest.approx(seen("mse", x).bounds(ASYMMETRIC), rel=1e-9)


# What all have in common.


@each
@both
@cases
def test_scales_are_positive_and_zero_is_exact(name: str, case: str, spec: QuantSpec) -> None:
    x = data(case)
    scale, zero_point = qparams(seen(name, *parts(x)), spec)
    assert scale.shape == zero_point.shape == (1,) and scale.dtype == torch.float32
    assert scale.isfinite().all() and (scale > 0).all()
    assert spec.qmin <= int(zero_point) <= spec.qmax and float(zero_point) == int(zero_point)
    low, high = (spec.qmin - float(zero_point)) * float(scale), (spec.qmax - float(zero_point)) * float(scale)
    least, most = ends(x)
    reach = max(-least, most, 0)
    if reach < 255 * SMALLEST:
        assert float(scale) == 1 or float(scale) <= 2 * SMALLEST
        return
    slack = 1.001 * float(scale)
    assert low >= (-reach if spec.symmetric else min(least, 0)) - slack
    assert high <= (reach if spec.symmetric else max(most, 0)) + slack


@each
@cases
def test_merged_observers_are_one_that_saw_it_all(name: str, case: str) -> None:
    batches = parts(data(case))
    whole = seen(name, *batches)
    merged = OBSERVERS[name]()
    for batch in batches:
        merged.merge(seen(name, batch))
    empty = OBSERVERS[name]()
    merged.merge(empty)
    for spec in (ASYMMETRIC, SYMMETRIC):
        assert merged.bounds(spec) == pytest.approx(whole.bounds(spec), rel=1e-9, abs=1e-300)


@each
def test_nothing_seen_is_a_range_of_zero(name: str) -> None:
    scale, zero_point = qparams(seen(name, torch.empty(0, 5)), ASYMMETRIC)
    assert float(scale) == 1
    assert functional.dequantize(zero_point.to(torch.int8), scale, zero_point, ASYMMETRIC) == 0


@each
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(name: str, bad: float) -> None:
    with pytest.raises(QuantizationError, match="not finite"):
        seen(name, torch.tensor([1.0, bad]))


@each
def test_memory_does_not_grow_with_the_data(name: str) -> None:
    observer = OBSERVERS[name]()
    for power in range(-40, 39, 3):
        observer.see(torch.randn(2000, generator=torch.Generator().manual_seed(power + 50)) * 10.0**power * 0.1)
    histogram = getattr(observer, "histogram", None)
    assert histogram is None or len(histogram.counts) <= MOST_BINS
