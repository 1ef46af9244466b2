"""Quantization that training sees through: learned step sizes, and the straight-through estimator.

Learned step sizes are Esser et al., arXiv:1902.08153 (LSQ), with a learned zero point as Bhalgat et al.,
arXiv:2004.09576 (LSQ+). What comes out is what `functional` makes of the same numbers, to the bit.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import functional
from .specs import QuantSpec


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
        ctx.spec = spec
        ctx.save_for_backward(x, scale, zero_point)
        return quantized(x, scale, zero_point, spec)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, scale, zero_point), spec = ctx.saved_tensors, ctx.spec
        shape, scale, zero = scale.shape, functional.as_stored(scale, spec), kept_zero_point(zero_point, spec)
        values, upstream = functional.grouped(x.float(), spec), functional.grouped(gradient.float(), spec)
        steps = values / scale
        place = torch.round(steps + zero) if spec.float_zero_point else torch.round(steps) + zero
        inside = (place >= spec.qmin) & (place <= spec.qmax)
        level = place.clamp(spec.qmin, spec.qmax) - zero  # what the scale is times
        fit = gradient_scale(values.shape[-1], spec)
        to_scale = fit * (upstream * (level - torch.where(inside, steps, 0.0))).sum(-1, keepdim=True)
        to_zero = fit * (upstream * torch.where(inside, 0.0, -scale)).sum(-1, keepdim=True)
        to_x = torch.where(inside, upstream, 0.0).reshape(x.shape).to(x.dtype) if ctx.needs_input_grad[0] else None
        return to_x, to_scale.sum_to_size(shape), to_zero.sum_to_size(zero_point.shape), None


def gradient_scale(count: int, spec: QuantSpec) -> float:
    """1 / sqrt(count * qmax): LSQ's balance of a step size, shared by `count` values, with the values (section 2.2)."""
    return 1 / math.sqrt(count * spec.qmax)


def learned(x: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """float32 of x's shape: `x` quantized and dequantized, with LSQ's gradients for x, scale and zero point.

    `scale`, `zero_point`: float32, as of `functional.choose_qparams`; a scale is rounded as it is stored, and the zero
    point, which may lie between whole numbers, to one. No codebooks. Within the range the gradient passes to x; beyond
    it, to the zero point. That of the scale is the level less x / scale within the range, the level itself beyond it,
    times `gradient_scale`.
    """
    return _Learned.apply(x, scale, zero_point, spec)


def quantized(x: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """As `learned`, without a gradient."""
    scale, zero_point = functional.as_stored(scale.detach(), spec), kept_zero_point(zero_point.detach(), spec)
    return functional.dequantize(functional.quantize(x, scale, zero_point, spec), scale, zero_point, spec)


def kept_zero_point(zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """float32: `zero_point` as it will be read again: rounded to a whole number, or to a float16 one."""
    return zero_point.half().float() if spec.float_zero_point else torch.round(zero_point)


def rescaled(q: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """float32 of q's shape: `functional.dequantize` with gradients for the scale and the zero point, rounded as stored.

    The integers are not chosen anew, so that these gradients are the true ones.
    """
    scale = _straight_through(scale, functional.as_stored(scale.detach(), spec))
    return functional.dequantize(q, scale, _straight_through(zero_point, kept_zero_point(zero_point, spec)), spec)


def _straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    return value + (rounded - value).detach()


class _Dynamic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, spec: QuantSpec) -> Tensor:
        return functional.fake_quantize(x, spec)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def dynamic(x: Tensor, spec: QuantSpec) -> Tensor:
    """`functional.fake_quantize`, whose gradient passes as it is: a measured range cuts nothing off.

    The straight-through estimator (Bengio et al., arXiv:1308.3432); that the range moves with its largest values too
    is left out, as rounding errors of either sign weigh it.
    """
    return _Dynamic.apply(x, spec)
