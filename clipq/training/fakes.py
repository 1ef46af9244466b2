"""`Fake`: what a quantized linear will compute, in floats that can be trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arithmetic import functional, lsq
from ..arithmetic.fitting import fit_qparams
from ..arithmetic.specs import QuantSpec
from ..methods.work import Floats
from ..modules.layers import QLinear

_EDGE = 0.25  # of a step: so near to its integer a value begins, not to be rounded otherwise by the first change


class Fake(nn.Module):
    """Stands in for a `QLinear`'s kernel: [..., in] to [..., out] in the input's dtype, fake-quantized.

    Trained are the bias and a factor of each step size, kept as its logarithm, so that one learning rate fits all. With
    `weights` these are trained too, and rounded anew in every step (LSQ). Without, the integers stay as they are, and
    only what they are times changes (as in the second phase of EfficientQAT, Chen et al., arXiv:2407.11062). A static
    range of the inputs (`Floats.static`: scale and zero point [1], which a step of the scheme found) is learned too.
    """

    def __init__(self, floats: Floats, weights: bool):
        super().__init__()
        self.floats = floats
        self.spec, self.activations = floats.layer.spec, floats.layer.activations
        weight, scale, zero_point = start(floats)
        self.register_buffer("first_scale", scale)
        self.steps = nn.Parameter(torch.zeros_like(scale))
        self.bias = None if floats.bias is None else nn.Parameter(floats.bias.clone())
        self.weight = nn.Parameter(weight) if weights else None
        self.range = None if getattr(floats, "static", None) is None else _Range(*floats.static, self.activations)
        learned = self.spec.float_zero_point or (weights and not self.spec.symmetric)
        self.zero_point = nn.Parameter(zero_point.clone(), requires_grad=learned)
        self.register_buffer("integers", None if weights else functional.quantize(weight, scale, zero_point, self.spec))

    def _scales(self) -> tuple[Tensor, Tensor]:
        """Step sizes and zero points as they are now; the latter may lie between whole numbers."""
        real = self.spec.float_zero_point
        zero_point = self.zero_point if real else self.zero_point.clamp(self.spec.qmin, self.spec.qmax)
        return self.first_scale * self.steps.exp(), zero_point

    def forward(self, x: Tensor) -> Tensor:
        rows = x if self.activations is None else self._quantized(x.float())
        bias = None if self.bias is None else self.bias.to(rows.dtype)
        return F.linear(rows, self.rounded_weight().to(rows.dtype), bias).to(x.dtype)

    def _quantized(self, x: Tensor) -> Tensor:
        return lsq.dynamic(x, self.activations) if self.range is None else self.range(x)

    def rounded_weight(self) -> Tensor:
        """float32 [out, in], fake-quantized."""
        if self.weight is None:
            return lsq.rescaled(self.integers, *self._scales(), self.spec)
        return lsq.learned(self.weight, *self._scales(), self.spec)

    def stand_in(self) -> None:
        """Let the layer compute with this, also where a host asks it for its weight and bias and never calls it."""
        layer = self.floats.layer
        layer._kernel = self.forward
        if type(layer) is QLinear:  # hosts read a convolution's weight for its type alone
            layer._dequantized = self.rounded_weight
            layer.bias = self.bias

    @torch.no_grad()
    def settle(self) -> None:
        """Give the layer the integers that were computed with, and let it run them."""
        scale, zero_point = self._scales()
        scale, zero_point = functional.as_stored(scale, self.spec), lsq.kept_zero_point(zero_point, self.spec)
        q = self.integers
        if q is None:
            q = functional.quantize(self.weight, scale, zero_point, self.spec)
        self.floats.rounded = (q, scale, zero_point)
        self.floats.bias = None if self.bias is None else self.bias.detach()
        if self.range is not None:
            self.floats.static = self.range.kept()
        vars(self.floats.layer).pop("_dequantized", None)
        self.floats.settle()


class _Range(nn.Module):
    """The range of static activations, learned as LSQ+ learns it."""

    def __init__(self, scale: Tensor, zero_point: Tensor, spec: QuantSpec):
        super().__init__()
        self.spec = spec
        self.register_buffer("first_scale", scale.detach().float().clone())
        self.steps = nn.Parameter(torch.zeros_like(self.first_scale))
        self.zero_point = nn.Parameter(zero_point.detach().float().clone(), requires_grad=not spec.symmetric)

    def _now(self) -> tuple[Tensor, Tensor]:
        return self.first_scale * self.steps.exp(), self.zero_point.clamp(self.spec.qmin, self.spec.qmax)

    def forward(self, x: Tensor) -> Tensor:
        scale, zero_point = self._now()
        return lsq.learned(x, scale.view(1, 1), zero_point.view(1, 1), self.spec)

    def kept(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point [1] as they are stored."""
        scale, zero_point = self._now()
        return scale.detach(), torch.round(zero_point.detach())


def start(floats: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, scale and zero point to begin with.

    Where a step of the scheme has chosen integers, the weight is moved to the nearest value that is rounded to them.
    """
    weight, spec = floats.weight.float(), floats.layer.spec
    if floats.rounded is None:
        return weight.clone(), *fit_qparams(weight, spec)
    q, scale, zero_point = (one.float() for one in floats.rounded)
    place = functional.grouped(weight, spec) / scale
    level = functional.grouped(q, spec) - zero_point
    nearest = torch.minimum(torch.maximum(place, level - _EDGE), level + _EDGE)
    return (nearest * scale).reshape(weight.shape), scale, zero_point
