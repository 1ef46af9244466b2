"""GPTQ: rounding the columns of a weight one after the other, each error made good by the columns still to come.

Frantar et al., arXiv:2210.17323; with its "static groups": scales are those of the weight before any rounding, so that
columns can be taken in the order of how much they matter. Below 8 bits scales, zero points and k-means' centres are
fitted to what the inputs make of their errors (`arithmetic.fitting`); at 8 bits they are those of the whole range.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import QuantizationError
from . import codebooks, functional
from .fitting import fit_qparams
from .specs import QuantSpec

_DAMPING = 0.01  # of the mean of the diagonal, added to it: a direction that calibration never showed stays put
_BLOCK = 128  # columns whose errors are passed on to the rest in one product

Round = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""For a column's place in order and its weights [out]: their integers (as floats), and what these stand for."""


def gptq(weight: Tensor, gram: Tensor, spec: QuantSpec, damping: float = _DAMPING) -> tuple[Tensor, Tensor, Tensor]:
    """int8 values [out, in], scale and zero point (as `functional.choose_qparams`) of `weight` [out, in].

    `gram`: the sum of x xᵀ over the inputs x [in] of the layer that were seen. What is minimised is the sum of
    |weight x - rounded x|². Raises `QuantizationError` for a gram matrix that is not finite.
    """
    if not torch.isfinite(gram).all():
        raise QuantizationError("a layer's inputs on the calibration data are not finite; look for what makes them so.")
    if spec.is_packed:
        scale, zero_point = fit_qparams(weight, spec, gram.diagonal())
    else:
        scale, zero_point = functional.choose_qparams(weight, spec)
    order = gram.diagonal().argsort(descending=True)
    root = _inverse_root(gram.double(), order, damping)
    rounded = _round_columns(weight.double()[:, order], root, _rounding(scale, zero_point, weight, order, spec))
    q = torch.empty_like(weight, dtype=torch.int8)
    q[:, order] = rounded.to(torch.int8)
    return q, scale, zero_point


def _rounding(scale: Tensor, zero_point: Tensor, weight: Tensor, order: Tensor, spec: QuantSpec) -> Round:
    if spec.stores_values:
        centres = scale.double().expand(len(weight), -1)

        def to_centre(j: int, column: Tensor) -> tuple[Tensor, Tensor]:
            codes = codebooks.nearest(column[:, None], centres)
            return codes[:, 0].double(), centres.gather(1, codes)[:, 0]

        return to_centre
    steps, zeros = (_per_column(one, weight.shape, spec)[:, order].double() for one in (scale, zero_point))
    table = codebooks.nf4().double()[None]

    def to_code(j: int, column: Tensor) -> tuple[Tensor, Tensor]:
        codes = codebooks.nearest((column / steps[:, j])[:, None], table)[:, 0]
        return codes.double(), table[0][codes] * steps[:, j]

    def to_integer(j: int, column: Tensor) -> tuple[Tensor, Tensor]:
        q = functional.rounded(column / steps[:, j], zeros[:, j], spec)
        return q, (q - zeros[:, j]) * steps[:, j]

    return to_code if spec.codebook else to_integer


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


def _round_columns(w: Tensor, root: Tensor, rounding: Round) -> Tensor:
    q = torch.empty_like(w)
    for start in range(0, w.shape[1], _BLOCK):
        end = min(start + _BLOCK, w.shape[1])
        errors = torch.empty_like(w[:, start:end])
        for j in range(start, end):
            q[:, j], values = rounding(j, w[:, j])
            errors[:, j - start] = (w[:, j] - values) / root[j, j]
            w[:, j + 1 : end] -= errors[:, j - start, None] * root[j, j + 1 : end]
        w[:, end:] -= errors @ root[start:end, end:]
    return q
