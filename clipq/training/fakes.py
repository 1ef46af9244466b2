"""`Fake`: what a quantized linear will compute, in floats that can be trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arithmetic import functional, lsq
from ..methods.work import Floats

_EDGE = 0.499  # of a step: as far from its integer as a value may be and still be rounded to it


class Fake(nn.Module):
    """Stands in for a `QLinear`'s kernel: [..., in] to [..., out] in the input's dtype, fake-quantized.

    Trained are a factor of each step size, the bias, and a factor of each input, which is multiplied into the weights
    before they are rounded: with the norm before it a linear so learns which inputs to round more finely. With
    `weights` these are trained, too. Factors are kept as logarithms, so that one learning rate fits all.
    """

    def __init__(self, floats: Floats, weights: bool):
        super().__init__()
        self.floats = floats
        self.spec, self.activations = floats.layer.spec, floats.layer.activations
        weight, scale, zero_point = start(floats)
        self.weight = nn.Parameter(weight, requires_grad=weights)
        self.inputs = nn.Parameter(torch.zeros_like(weight[0]))
        self.steps = nn.Parameter(torch.zeros_like(scale))
        self.zero_point = None if self.spec.symmetric else nn.Parameter(zero_point)
        self.bias = None if floats.bias is None else nn.Parameter(floats.bias.clone())
        self.register_buffer("first_scale", scale)

    def scale(self) -> Tensor:
        """The step sizes as they are now."""
        return self.first_scale * self.steps.exp()

    def zeros(self) -> Tensor:
        """The zero points as they are now; they may lie between whole numbers."""
        return torch.zeros_like(self.first_scale) if self.zero_point is None else self.zero_point

    def scaled_weight(self) -> Tensor:
        """float32 [out, in], not rounded."""
        return self.weight * self.inputs.exp()

    def forward(self, x: Tensor) -> Tensor:
        rows = x if self.activations is None else lsq.dynamic(x.float(), self.activations)
        weight = lsq.learned(self.scaled_weight(), self.scale(), self.zeros(), self.spec)
        bias = None if self.bias is None else self.bias.to(rows.dtype)
        return F.linear(rows, weight.to(rows.dtype), bias).to(x.dtype)

    @torch.no_grad()
    def settle(self) -> None:
        """Give the layer the integers that were computed with, and let it run them."""
        scale, zero_point = self.scale(), torch.round(self.zeros())
        zero_point = zero_point.clamp(self.spec.qmin, self.spec.qmax)
        weight = self.scaled_weight()
        self.floats.weight = weight
        self.floats.rounded = (functional.quantize(weight, scale, zero_point, self.spec), scale, zero_point)
        self.floats.bias = None if self.bias is None else self.bias.detach()
        self.floats.settle()


def start(floats: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, scale and zero point to begin with.

    Where a step of the scheme has chosen integers, the weight is moved to the nearest value that is rounded to them.
    """
    weight, spec = floats.weight.float(), floats.layer.spec
    if floats.rounded is None:
        return weight.clone(), *lsq.closest_step(weight, spec)
    q, scale, zero_point = (one.float() for one in floats.rounded)
    place = lsq.grouped(weight, spec) / scale
    level = lsq.grouped(q, spec) - zero_point
    nearest = torch.minimum(torch.maximum(place, level - _EDGE), level + _EDGE)
    return (nearest * scale).reshape(weight.shape), scale, zero_point
