"""Scales and zero points by the error that they leave, instead of by the largest values alone.

As HQQ (Badri and Shaji, https://mobiusml.github.io/hqq_blog/) without data, and as most weight-only quantizers with it:
first the range is clipped, a share after the other, then integers and affine parameters are fitted to each other in
turns. HQQ's robust norm (l_p, p < 1) was tried against plain squares, and squares leave embeddings nearer to float's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import codebooks, functional
from .specs import QuantSpec

_SHARES = tuple(1 - 0.02 * step for step in range(31))  # of the range, from all of it down
_TURNS = 20


def fit_qparams(weight: Tensor, spec: QuantSpec, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scale and zero point, as `functional.choose_qparams`, of `weight` [out, in], by the smallest squared error.

    `importance` [in]: what the error of an input's weights weighs, such as the mean of its square; all the same
    without. Never a larger error than the whole range's.
    """
    values = functional.grouped(weight.detach().float(), spec)
    weights = torch.ones_like(values) if importance is None else functional.grouped(_rows(importance, weight), spec)
    weights = weights + weights.mean(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) * 1e-6
    if spec.stores_values:
        found = codebooks.kmeans(values, 1 << spec.bits, weights)
        return functional.as_stored(found, spec), torch.zeros(len(values), 1, device=weight.device)
    best = _Best(values, weights, spec)
    low, high = torch.aminmax(values, dim=-1, keepdim=True)
    for share in _SHARES:
        best.offer(*functional.qparams_of_range(low * share, high * share, spec))
    for _ in range(_TURNS):
        best.offer(*_least_squares(values, weights, best, spec))
    return best.scale, best.zero_point


def _rows(importance: Tensor, weight: Tensor) -> Tensor:
    return importance.float().expand(weight.shape)


class _Best:
    """The scale and zero point of each group with the smallest error so far, and what they make of the values."""

    def __init__(self, values: Tensor, weights: Tensor, spec: QuantSpec):
        self.values, self.weights, self.spec = values, weights, spec
        self.scale = self.zero_point = self.error = self.levels = None

    def offer(self, scale: Tensor, zero_point: Tensor) -> None:
        levels = functional.levels(self.values, scale, zero_point, self.spec)
        error = (self.weights * (levels * scale - self.values) ** 2).sum(-1, keepdim=True)
        if self.error is None:
            self.scale, self.zero_point, self.error, self.levels = scale, zero_point, error, levels
            return
        better = error < self.error
        self.scale = torch.where(better, scale, self.scale)
        self.zero_point = torch.where(better, zero_point, self.zero_point)
        self.error, self.levels = torch.where(better, error, self.error), torch.where(better, levels, self.levels)


def _least_squares(values: Tensor, weights: Tensor, best: _Best, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """The best scale for the levels as they are, and where zero points are real numbers the best of these too."""
    levels, total = best.levels, weights.sum(-1, keepdim=True)
    if not spec.float_zero_point:
        scale = (weights * levels * values).sum(-1, keepdim=True) / (weights * levels**2).sum(-1, keepdim=True)
        return functional.as_stored(_usable(scale, best.scale), spec), best.zero_point
    q, means = levels + best.zero_point, []
    for one in (q, values):
        means.append((weights * one).sum(-1, keepdim=True) / total)
    spread = (weights * (q - means[0]) ** 2).sum(-1, keepdim=True)
    slope = (weights * (q - means[0]) * (values - means[1])).sum(-1, keepdim=True) / spread
    scale = functional.as_stored(_usable(slope, best.scale), spec)
    zero_point = (means[0] - means[1] / scale).half().float()
    return scale, torch.where(zero_point.isfinite(), zero_point, best.zero_point)


def _usable(scale: Tensor, before: Tensor) -> Tensor:
    """`scale`, or where that is no positive number the one before."""
    return torch.where(scale.isfinite() & (scale > 0), scale, before)
