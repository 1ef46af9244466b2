"""The definition of the numbers: scales, zero points, rounding. Every kernel is compared with this file.

Affine quantization as in Jacob et al., arXiv:1712.05877: x ~ scale * (q - zero_point), q an int8. Notes:
- rounding is to nearest, ties to even (torch.round, IEEE 754);
- the range of asymmetric quantization always includes zero, so that zero is exact;
- fp8 (kind="float") is what torch's own cast gives for x / scale, but saturated: nothing becomes NaN by being large;
- an all-zero group gets scale 1 and q = 0; a group with a non-finite value, or with a range beyond float32, gets scale
  NaN, so that everything computed from it is NaN and cannot be overlooked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import QuantizationError, SchemeError
from .specs import QuantSpec

STORED = {"int": torch.int8, "float": torch.float8_e4m3fn}
"""What the values of each kind of numbers are stored as."""


def _grouped(x: Tensor, spec: QuantSpec) -> Tensor:
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
    values = _grouped(x.detach().float(), spec)
    if values.numel() == 0:
        ones = torch.ones(*values.shape[:-1], 1, device=x.device)
        return ones, torch.zeros_like(ones)
    low, high = torch.aminmax(values, dim=-1, keepdim=True)
    if spec.symmetric:
        scale = torch.maximum(-low, high) / spec.qmax
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = (high - low) / (spec.qmax - spec.qmin)
    scale = torch.where(scale == 0, 1.0, scale.clamp(min=torch.finfo(torch.float32).tiny))
    scale = torch.where(torch.isfinite(scale), scale, torch.nan)
    if spec.symmetric:
        return scale, torch.zeros_like(scale)
    return scale, (spec.qmin - torch.round(low / scale)).clamp(spec.qmin, spec.qmax)


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """int8 tensor of x's shape: clamp(round(x / scale) + zero_point); fp8: round(clamp(x / scale)), to its nearest.

    Groups with a NaN scale become 0.
    """
    steps = _grouped(x.detach().float(), spec) / scale
    q = steps if spec.kind == "float" else torch.round(steps) + zero_point
    q = torch.nan_to_num(q, nan=0.0).clamp(spec.qmin, spec.qmax)
    return q.to(STORED[spec.kind]).reshape(x.shape)


def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantSpec) -> Tensor:
    """float32 tensor of q's shape: scale * (q - zero_point)."""
    return ((_grouped(q.float(), spec) - zero_point) * scale).reshape(q.shape)


def fake_quantize(x: Tensor, spec: QuantSpec) -> Tensor:
    """What is left of `x` (float32) after quantizing and dequantizing it by `spec`."""
    scale, zero_point = choose_qparams(x, spec)
    return dequantize(quantize(x, scale, zero_point, spec), scale, zero_point, spec)


def quantize_weight(weight: Tensor, spec: QuantSpec, name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """int8 (or fp8) weight, float32 scale and (asymmetric only) int8 zero point of the parameter `name`.

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
    return q, scale, None if spec.symmetric else zero_point.to(torch.int8)


def sqnr(reference: Tensor, approximation: Tensor) -> Tensor:
    """Signal to quantization-noise ratio in dB: 20 log10(|reference| / |reference - approximation|); inf if equal."""
    reference = reference.double()
    return 20 * torch.log10(torch.linalg.vector_norm(reference) / torch.linalg.vector_norm(reference - approximation))
