"""GPTQ against a dense computation in float64, and never worse than rounding to nearest on what it has seen."""

from __future__ import annotations

import pytest
import torch

from clipq.arithmetic import functional
from clipq.arithmetic.gptq import gptq
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import QuantizationError

SPECS = {
    "channel": QuantSpec(),
    "channel, asymmetric": QuantSpec(symmetric=False),
    "tensor": QuantSpec(granularity="tensor"),
    "group": QuantSpec(granularity="group", group_size=16),
}


def inputs(rows: int, width: int, kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, width, generator=generator) @ torch.randn(width, width, generator=generator)
    if kind == "outlier":
        x[:, 3] *= 50
    if kind == "never seen":
        x[:, ::2] = 0
    return x


def loss(weight, q, scale, zero_point, spec, x) -> float:
    error = functional.dequantize(q, scale, zero_point, spec).double() - weight.double()
    return ((x.double() @ error.T) ** 2).sum().item()


@pytest.mark.parametrize("kind", ["plain", "outlier", "never seen"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_it_is_better_than_rounding_to_nearest(spec, kind):
    weight, x = torch.randn(24, 64, generator=torch.Generator().manual_seed(0)), inputs(512, 64, kind)
    found = gptq(weight, x.T @ x, spec)
    scale, zero_point = functional.choose_qparams(weight, spec)
    nearest = functional.quantize(weight, scale, zero_point, spec)
    assert torch.equal(found[1], scale)
    assert torch.equal(found[2], zero_point)
    assert loss(weight, *found, spec, x) < 0.8 * loss(weight, nearest, scale, zero_point, spec, x)


def dense(weight: torch.Tensor, gram: torch.Tensor, spec: QuantSpec, damping: float) -> torch.Tensor:
    """Optimal brain quantization in a fixed order, as the paper derives it: the inverse is shrunk at every step."""
    w, scale = weight.double().clone(), functional.choose_qparams(weight, spec)[0].double()
    inverse = torch.linalg.inv(gram.double() + damping * gram.double().diagonal().mean() * torch.eye(len(gram)))
    left = gram.diagonal().argsort(descending=True).tolist()
    q = torch.zeros_like(w)
    while left:
        j = left.pop(0)
        q[:, j] = torch.round(w[:, j] / scale[:, 0]).clamp(spec.qmin, spec.qmax)
        error = (w[:, j] - q[:, j] * scale[:, 0]) / inverse[j, j]
        w -= error[:, None] * inverse[j]
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return q


@pytest.mark.parametrize("width", [1, 7, 64, 200])
def test_it_is_the_papers_greedy_solution(width):
    weight, x = torch.randn(5, width, generator=torch.Generator().manual_seed(2)), inputs(256, width, "plain")
    spec, gram = QuantSpec(), (x.T @ x)
    q = gptq(weight, gram, spec, damping=0.01)[0]
    expected = dense(weight, gram, spec, 0.01)
    assert (q.double() != expected).double().mean() <= 0.01  # a tie may fall otherwise


def test_inputs_never_seen_leave_rounding_to_nearest():
    weight = torch.randn(4, 8)
    q, scale, zero_point = gptq(weight, torch.zeros(8, 8), QuantSpec())
    assert torch.equal(q, functional.quantize(weight, scale, zero_point, QuantSpec()))


def test_inputs_that_are_not_finite_are_refused():
    with pytest.raises(QuantizationError, match="not finite"):
        gptq(torch.randn(4, 8), torch.full((8, 8), float("nan")), QuantSpec())
