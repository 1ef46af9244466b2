"""A fake by itself: what it computes is what its layer will, and its range is learned where that is static."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipq.arithmetic import functional
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.methods.work import Floats
from clipq.modules.layers import QLinear
from clipq.training.fakes import Fake


def floats_with(activations: QuantSpec | None, weights: QuantSpec | None = None) -> Floats:
    linear = nn.Linear(12, 7)
    layer = QLinear.from_float(linear, Scheme("mine", weights or QuantSpec(), activations, fallback="fp32"))
    return Floats("linear", layer, linear.weight, linear.bias)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_static_range_is_learned_and_kept(symmetric):
    spec, x = QuantSpec(symmetric=symmetric, granularity="tensor"), 3 * torch.randn(5, 12)
    floats = floats_with(spec)
    scale, zero = functional.choose_qparams(x, spec)
    floats.static = 0.4 * scale.view(1), zero.view(1)  # so that much is beyond it
    fake = Fake(floats, weights=False)
    rows = functional.dequantize(functional.quantize(x, 0.4 * scale, zero, spec), 0.4 * scale, zero, spec)
    assert torch.allclose(fake(x), F.linear(rows, fake.rounded_weight(), fake.bias), atol=1e-6)
    loss = (fake(x) - F.linear(x, floats.weight, floats.bias)).square().sum()
    loss.backward()
    named = {name for name, one in fake.named_parameters() if one.grad is not None and one.grad.any()}
    assert named == {"steps", "bias", "range.steps"} | (set() if symmetric else {"range.zero_point"})
    assert fake.range.steps.grad < 0  # a wider one is better
    with torch.no_grad():
        fake.range.steps += 0.5
    fake.settle()
    assert torch.allclose(floats.static[0], 0.4 * scale.view(1) * torch.tensor(0.5).exp())
    assert torch.equal(floats.static[1], zero.view(1))


def test_full_training_rounds_weights_anew_and_light_does_not():
    floats = floats_with(QuantSpec(granularity="token"), QuantSpec(bits=4))
    light, full = Fake(floats, weights=False), Fake(floats, weights=True)
    before = light.integers.clone()
    assert torch.equal(light.rounded_weight(), full.rounded_weight())
    with torch.no_grad():
        for one in (light, full):
            one.steps += 0.2
    assert torch.allclose(light.rounded_weight(), before * (light.first_scale * torch.tensor(0.2).exp()))
    for one in (light, full):
        computed = one.rounded_weight().detach()
        one.settle()
        assert torch.equal(floats.layer.kernel_weights().dequantized(), computed)
        assert (not torch.equal(floats.rounded[0], before)) == (one is full)


def test_what_a_host_reads_is_what_is_computed_with():
    """ResNet's attention pooling reads its projections' weights and never calls them."""
    floats = floats_with(QuantSpec(granularity="token"))
    fake = Fake(floats, weights=True)
    fake.stand_in()
    with torch.no_grad():
        fake.weight += 0.1
        fake.bias += 1
    assert torch.equal(floats.layer.weight, fake.rounded_weight())
    assert floats.layer.bias is fake.bias
    floats.layer.weight.sum().backward()
    assert fake.weight.grad.any()
    fake.settle()
    assert not floats.layer.weight.requires_grad and not floats.layer.bias.requires_grad
