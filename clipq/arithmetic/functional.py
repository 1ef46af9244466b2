"""The definition of the numbers: scales, zero points, rounding. Every kernel is compared with this file.

Affine quantization as in Jacob et al., arXiv:1712.05877: x ~ scale * (q - zero_point), q an int8. Notes:
- rounding is to nearest, ties to even (torch.round, IEEE 754);
- the range of asymmetric quantization always includes zero, so that zero is exact;
- fp8 (kind="float") is what torch's own cast gives for x / scale, but saturated: nothing becomes NaN by being large;
- an all-zero group gets scale 1 and q = 0; a group with a non-finite value, or with a range beyond float32, gets scale
  NaN, so that everything computed from it is NaN and cannot be overlooked;
- scales of groups of fewer than 8 bits, and the values of k-means, are float16 numbers, so that they can be stored as
  such, unless a row of the tensor has none as large as 1e-4.
With a codebook x ~ scale * codebook[q], or for k-means, whose values are kept in the place of scales, x ~ values[q].
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import QuantizationError, SchemeError
from . import codebooks
from .specs import QuantSpec

STORED = {"int": torch.int8, "float": torch.float8_e4m3fn}
"""What the values of each kind of numbers are stored as."""

_HALF = torch.finfo(torch.float16)
_FINE = 1e-4  # float16 numbers differ by no more than 6e-8 below it, by 1/2048 of themselves above


def grouped(x: Tensor, spec: QuantSpec) -> Tensor:
    """`x` as [groups..., values]: what shares a scale lies in the last dimension."""
    if spec.granularity == "tensor":
        return x.reshape(1, -1)
    if spec.granularity == "group":
        if x.shape[-1] % spec.group_size:
            raise SchemeError(f"{x.shape[-1]} inputs do not divide into groups of {spec.group_size}; choose a divisor.")
        return x.unflatten(-1, (x.shape[-1] // spec.group_size, spec.group_size))
    return x.unsqueeze(-1).flatten(1) if spec.granularity == "channel" else x


def choose_qparams(x: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (float32 holding whole numbers) of each group of `x`.

    `x`: any float tensor. Shapes returned: [1, 1] per tensor; [channels, 1] per channel (first dimension); x's with a
    last dimension of 1 per token; [..., groups, 1] per group. Raises `SchemeError` where groups do not divide.
    """
    values = grouped(x.detach().float(), spec)
    if spec.stores_values:
        return as_stored(codebooks.kmeans(values, 1 << spec.bits), spec), torch.zeros(len(values), 1, device=x.device)
    if values.numel() == 0:
        ones = torch.ones(*values.shape[:-1], 1, device=x.device)
        return ones, torch.zeros_like(ones)
    return qparams_of(*torch.aminmax(values, dim=-1, keepdim=True), spec)


def qparams_of(low: Tensor, high: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """Scale and zero point, as `choose_qparams`, of values between `low` and `high` (float32, of one shape)."""
    if spec.codebook:
        scale = torch.maximum(-low, high)
    elif spec.symmetric:
        scale = torch.maximum(low / spec.qmin, high / spec.qmax)
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = (high - low) / (spec.qmax - spec.qmin)
    scale = torch.where(scale == 0, 1.0, scale.clamp(min=torch.finfo(torch.float32).tiny))
    scale = as_stored(torch.where(torch.isfinite(scale), scale, torch.nan), spec)
    if spec.symmetric:
        return scale, torch.zeros_like(scale)
    if spec.float_zero_point:
        return scale, (spec.qmin - low / scale).half().float()
    return scale, (spec.qmin - torch.round(low / scale)).clamp(spec.qmin, spec.qmax)


def as_stored(scale: Tensor, spec: QuantSpec) -> Tensor:
    """float32: `scale` as it will be read again, rounded to float16 numbers where those are stored."""
    if not spec.has_half_scales or scale.numel() == 0:
        return scale
    rows = scale.abs().flatten(1).amax(1)  # small groups of a row may lose precision: its large ones outweigh them
    if not bool(((rows >= _FINE) & (rows <= _HALF.max)).all()):
        return scale
    half = scale.half().float()
    return half if spec.stores_values else half.clamp(min=_HALF.smallest_normal * _HALF.eps)


def stored(scale: Tensor, spec: QuantSpec) -> Tensor:
    """`scale` as float16 where the spec has such scales and nothing is lost by that, else as it is."""
    half = scale.half()
    return half if spec.has_half_scales and torch.equal(half.float(), scale.float()) else scale


def stored_zero_point(zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """int8, or float16 where zero points are real numbers."""
    return zero_point.to(torch.float16 if spec.float_zero_point else torch.int8)


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """int8 tensor of x's shape: clamp(round(x / scale) + zero_point). Groups with a NaN scale become 0.

    fp8: the nearest to clamp(x / scale). With a codebook, the places of the nearest values in it.
    """
    values = grouped(x.detach().float(), spec)
    if spec.codebook:
        centres = scale.float() if spec.stores_values else codebooks.nf4().to(x.device)[None]
        rows = values if spec.stores_values else values / scale
        return codebooks.nearest(rows.flatten(0, -2), centres).to(torch.int8).reshape(x.shape)
    q = rounded(values / scale, zero_point, spec)
    return torch.nan_to_num(q, nan=0.0).to(STORED[spec.kind]).reshape(x.shape)


def rounded(x: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """The integers (or fp8 numbers), as floats, nearest to `x` scales and `zero_point`, within the range of `spec`."""
    if spec.kind == "float":
        return x.clamp(spec.qmin, spec.qmax).to(STORED[spec.kind]).to(x.dtype)
    q = torch.round(x + zero_point) if spec.float_zero_point else torch.round(x) + zero_point
    return q.clamp(spec.qmin, spec.qmax)


def levels(values: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """What is left of `values` [..., n] after quantizing them, in multiples of `scale`."""
    if spec.codebook:
        table = codebooks.nf4().to(values.device, values.dtype)
        return table[codebooks.nearest((values / scale).flatten(0, -2), table[None]).reshape(values.shape)]
    return rounded(values / scale, zero_point, spec) - zero_point


def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """float32 tensor of q's shape: scale * (q - zero_point), or what the codebook has at q."""
    scale = scale.float()
    if spec.stores_values:
        rows = grouped(q, spec).long()
        return scale.expand(len(rows), -1).gather(1, rows).reshape(q.shape)
    if spec.codebook:
        return (codebooks.nf4().to(q.device)[grouped(q, spec).int()] * scale).reshape(q.shape)
    return ((grouped(q.float(), spec) - zero_point) * scale).reshape(q.shape)


def static_qparams(x: Tensor, scale: Tensor, zero_point: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scale and zero point [..., 1] of each row of `x` [..., n] by one range that was measured before.

    What lies outside of it saturates; but a row with a non-finite value gets scale NaN and zero point 0, as one whose
    range is measured does. `scale`: float32 [1]; `zero_point`: whole numbers [1], or None for 0.
    """
    finite = torch.isfinite(x.detach()).all(-1, keepdim=True)
    scales = torch.where(finite, scale, torch.nan)
    return scales, torch.zeros_like(scales) if zero_point is None else torch.where(finite, zero_point.float(), 0.0)


def fake_quantize(x: Tensor, spec: QuantSpec) -> Tensor:
    """What is left of `x` (float32) after quantizing and dequantizing it by `spec`."""
    scale, zero_point = choose_qparams(x, spec)
    return dequantize(quantize(x, scale, zero_point, spec), scale, zero_point, spec)


def quantize_weight(weight: Tensor, spec: QuantSpec, name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """int8 (or fp8) weight, scale and (asymmetric only) zero point of the parameter `name`, to be stored.

    Scales are float32, or float16 where `as_stored` made them such numbers.

    Raises `QuantizationError` naming the tensor if it holds a NaN or an infinity, or the integers of another quantizer.
    """
    if not weight.is_floating_point():
        raise QuantizationError(f"{name} is {weight.dtype}, so quantized already; quantize the float model instead.")
    weight = weight.detach().float()
    if not torch.isfinite(weight).all():
        count = int((~torch.isfinite(weight)).sum())
        raise QuantizationError(
            f"{name} holds {count} non-finite values of {weight.numel()}; mend the checkpoint first."
        )
    scale, zero_point = choose_qparams(weight, spec)
    if not torch.isfinite(scale).all():
        raise QuantizationError(f"{name} spans more than float32 can hold; mend the checkpoint first.")
    q = quantize(weight, scale, zero_point, spec)
    return q, stored(scale, spec), None if spec.symmetric else stored_zero_point(zero_point, spec)


def sqnr(reference: Tensor, approximation: Tensor) -> Tensor:
    """Signal to quantization-noise ratio in dB: 20 log10(|reference| / |reference - approximation|); inf if equal."""
    reference = reference.double()
    return 20 * torch.log10(torch.linalg.vector_norm(reference) / torch.linalg.vector_norm(reference - approximation))
