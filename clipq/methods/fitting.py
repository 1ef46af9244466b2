"""Rounding without any inputs, to scales and zero points of the least error in the weights."""

from __future__ import annotations

from ..arithmetic import functional
from ..arithmetic.fitting import fit_qparams
from .work import Work


def fit_scales(work: Work) -> None:
    """Round every linear to nearest, by the scales and zero points of `arithmetic.fitting`."""
    for one in work.floats.values():
        spec = one.layer.spec
        scale, zero_point = fit_qparams(one.weight, spec)
        one.rounded = functional.quantize(one.weight, scale, zero_point, spec), scale, zero_point
