"""GPTQ: rounding the columns of a weight one after the other, each error made good by the columns still to come.

Frantar et al., arXiv:2210.17323; with its "static groups": scales are those of the weight before any rounding, so that
columns can be taken in the order of how much they matter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import QuantizationError
from . import functional
from .specs import QuantSpec

_DAMPING = 0.01  # of the mean of the diagonal, added to it: a direction that calibration never showed stays put
_BLOCK = 128  # columns whose errors are passed on to the rest in one product


def gptq(weight: Tensor, gram: Tensor, spec: QuantSpec, damping: float = _DAMPING) -> tuple[Tensor, Tensor, Tensor]:
    """int8 values [out, in], scale and zero point (as `functional.choose_qparams`) of `weight` [out, in].

    `gram`: the sum of x xᵀ over the inputs x [in] of the layer that were seen. What is minimised is the sum of
    |weight x - rounded x|². Raises `QuantizationError` for a gram matrix that is not finite.
    """
    if not torch.isfinite(gram).all():
        raise QuantizationError("a layer's inputs on the calibration data are not finite; look for what makes them so.")
    scale, zero_point = functional.choose_qparams(weight, spec)
    order = gram.diagonal().argsort(descending=True)
    steps, zeros = (_per_column(one, weight.shape, spec)[:, order].double() for one in (scale, zero_point))
    rounded = _round_columns(
        weight.double()[:, order], _inverse_root(gram.double(), order, damping), steps, zeros, spec
    )
    q = torch.empty_like(weight, dtype=torch.int8)
    q[:, order] = rounded.to(torch.int8)
    return q, scale, zero_point


def _per_column(values: Tensor, shape: torch.Size, spec: QuantSpec) -> Tensor:
    """Scales or zero points, one a group, as [out, in]."""
    if spec.granularity == "group":
        return values.expand(*values.shape[:-1], spec.group_size).reshape(shape)
    return values.expand(shape)


def _inverse_root(gram: Tensor, order: Tensor, damping: float) -> Tensor:
    """Upper triangular U with UᵀU the inverse of the damped gram matrix, its rows and columns in `order`."""
    gram = gram[order][:, order]
    mean = gram.diagonal().mean()
    gram = gram + torch.eye(len(gram), dtype=gram.dtype) * (damping * mean if mean > 0 else 1.0)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True)


def _round_columns(w: Tensor, root: Tensor, steps: Tensor, zeros: Tensor, spec: QuantSpec) -> Tensor:
    q = torch.empty_like(w)
    for start in range(0, w.shape[1], _BLOCK):
        end = min(start + _BLOCK, w.shape[1])
        errors = torch.empty_like(w[:, start:end])
        for j in range(start, end):
            q[:, j] = (torch.round(w[:, j] / steps[:, j]) + zeros[:, j]).clamp(spec.qmin, spec.qmax)
            errors[:, j - start] = (w[:, j] - (q[:, j] - zeros[:, j]) * steps[:, j]) / root[j, j]
            w[:, j + 1 : end] -= errors[:, j - start, None] * root[j, j + 1 : end]
        w[:, end:] -= errors @ root[start:end, end:]
    return q
