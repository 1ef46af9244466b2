"""Learned step sizes against the formulas of their papers, written out in float64; the straight-through estimator."""

from __future__ import annotations

import math

import pytest
import torch

from clipq.arithmetic import functional, lsq
from clipq.arithmetic.specs import QuantSpec

SPECS = [
    QuantSpec(granularity="channel"),
    QuantSpec(granularity="tensor"),
    QuantSpec(granularity="group", group_size=4),
    QuantSpec(symmetric=False, granularity="channel"),
    QuantSpec(granularity="channel", bits=4),
    QuantSpec(symmetric=False, granularity="group", group_size=6, bits=4),
    QuantSpec(granularity="tensor", bits=2),
    QuantSpec(symmetric=False, granularity="group", group_size=6, bits=4, float_zero_point=True),
]


def groups_of(spec: QuantSpec, rows: int, width: int) -> list[list[tuple[int, int]]]:
    """The places of the values that share a scale, in the order in which scales lie."""
    if spec.granularity == "tensor":
        return [[(i, j) for i in range(rows) for j in range(width)]]
    size = spec.group_size or width
    return [[(i, j) for j in range(k, k + size)] for i in range(rows) for k in range(0, width, size)]


def by_the_paper(x, scale, zero, upstream, spec):
    """Equations 1 to 3 and section 2.2 of arXiv:1902.08153, and 4 to 6 of arXiv:2004.09576, value by value."""
    y, to_x = torch.zeros_like(x), torch.zeros_like(x)
    to_scale, to_zero = torch.zeros_like(scale).flatten(), torch.zeros_like(zero).flatten()
    for g, places in enumerate(groups_of(spec, *x.shape)):
        s, z = scale.flatten()[g], zero.flatten()[g]
        z = z if spec.float_zero_point else torch.round(z)
        fit = 1 / math.sqrt(len(places) * spec.qmax)
        for at in places:
            step = x[at] / s
            level = torch.round(step + z) if spec.float_zero_point else torch.round(step) + z
            if level < spec.qmin or level > spec.qmax:
                end = spec.qmin if level < spec.qmin else spec.qmax
                y[at] = (end - z) * s
                to_scale[g] += fit * (end - z) * upstream[at]
                to_zero[g] += fit * -s * upstream[at]
            else:
                y[at] = (level - z) * s
                to_scale[g] += fit * (level - z - step) * upstream[at]
                to_x[at] = upstream[at]
    return y, to_x, to_scale.view_as(scale), to_zero.view_as(zero)


def tensors(spec: QuantSpec, share: float):
    """Weights with an outlier and a constant row; step sizes that cut off some of them where `share` is small."""
    x = torch.randn(5, 12)
    x[1, 3], x[2] = 30.0, 0.7
    scale, zero = functional.choose_qparams(x, spec)
    scale = functional.as_stored(scale * share, spec)
    return x, scale, zero if spec.symmetric else (zero + 0.25).half().float()


@pytest.mark.parametrize("share", [1.0, 0.31])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_values_and_gradients_are_the_papers(spec, share):
    x, scale, zero = (one.requires_grad_() for one in tensors(spec, share))
    upstream = torch.randn_like(x)
    y = lsq.learned(x, scale, zero, spec)
    y.backward(upstream)
    exact = by_the_paper(*(one.detach().double() for one in (x, scale, zero, upstream)), spec)
    for found, expected in zip((y, x.grad, scale.grad, zero.grad), exact, strict=True):
        assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_values_are_those_that_are_stored_to_the_bit(spec):
    x, scale, _ = tensors(spec, 0.8)
    zero = functional.choose_qparams(x, spec)[1]
    q = functional.quantize(x, scale, zero, spec)
    assert torch.equal(lsq.learned(x, scale, zero, spec), functional.dequantize(q, scale, zero, spec))


def test_beyond_the_range_the_gradient_is_the_true_one():
    """There y = level * scale, which is smooth: finite differences know its slope, LSQ's factor aside."""
    spec = QuantSpec(granularity="channel")
    x, zero = torch.tensor([[90.0, -75.0, 60.0], [-8.0, 9.0, 7.0]]), torch.zeros(2, 1)
    factor = lsq.gradient_scale(3, spec)

    def scaled(scale):
        return lsq.learned(x, scale, zero, spec) / factor

    scale = torch.tensor([[0.1], [0.02]], requires_grad=True)
    found = torch.autograd.grad(scaled(scale).sum(), scale)[0]
    slope = (scaled(scale + 2e-3) - scaled(scale - 2e-3)).sum(1, keepdim=True) / 4e-3 * factor
    assert torch.allclose(found, slope, rtol=1e-3)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_integers_that_stay_have_the_true_gradient(spec):
    x, scale, zero = tensors(spec, 0.8)
    zero = lsq.kept_zero_point(zero, spec)
    q = functional.quantize(x, scale, zero, spec)
    assert torch.equal(lsq.rescaled(q, scale, zero, spec), functional.dequantize(q, scale, zero, spec))

    def plain(s, z):
        return ((functional.grouped(q.double(), spec) - z) * s).reshape(x.shape)

    exact, upstream = [one.double().requires_grad_() for one in (scale, zero)], torch.randn_like(x)
    assert torch.autograd.gradcheck(plain, exact)
    expected = torch.autograd.grad(plain(*exact), exact, upstream.double())
    own = [one.clone().requires_grad_() for one in (scale, zero)]
    found = torch.autograd.grad(lsq.rescaled(q, *own, spec), own, upstream)
    assert all(torch.allclose(a.double(), b, rtol=1e-4, atol=1e-4) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("spec", [QuantSpec(granularity="token"), QuantSpec(symmetric=False, granularity="token")])
def test_a_measured_range_lets_the_gradient_through(spec):
    x = (torch.randn(7, 16) * torch.logspace(-3, 3, 7)[:, None]).requires_grad_()
    y = lsq.dynamic(x, spec)
    assert torch.equal(y, functional.fake_quantize(x, spec))
    upstream = torch.randn_like(x)
    y.backward(upstream)
    assert torch.equal(x.grad, upstream)
