"""What a kernel gets: the tensors of one quantized linear and how they are meant."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..arithmetic import functional, packing
from ..arithmetic.specs import QuantSpec


@dataclass(frozen=True)
class LinearWeights:
    """`qweight` with its `scale` (float32 or float16), optional int8 `zero_point`, optional `bias` [out].

    `qweight`: int8 or fp8 [out, in], or for fewer than 8 bits uint8 [out, bytes]: `inputs` values a row, packed as
    `arithmetic.packing` does.
    `input_scale`, `input_zero_point` [1]: the range of static activations, the latter only if asymmetric.
    """

    qweight: Tensor
    scale: Tensor
    zero_point: Tensor | None
    bias: Tensor | None
    spec: QuantSpec
    activations: QuantSpec | None
    inputs: int | None = None
    input_scale: Tensor | None = None
    input_zero_point: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.qweight.device

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.qweight.shape[0], self.qweight.shape[1] if self.inputs is None else self.inputs

    @property
    def integers(self) -> Tensor:
        """int8 [out, in]; unpacked anew at each call where several share a byte."""
        if not self.spec.is_packed or self.qweight.dtype == torch.int8:
            return self.qweight
        values = packing.unpack(self.qweight, self.spec.bits, self.shape[1])
        return (values.to(torch.int8) + self.spec.qmin) if self.spec.qmin else values.to(torch.int8)

    @property
    def static(self) -> bool:
        """Whether the range of the activations was measured before."""
        return self.activations is not None and not self.activations.dynamic

    def static_range(self) -> tuple[float, int]:
        """Scale and zero point of static activations; the scale is 0 where each row's own range is measured."""
        if not self.static:
            return 0.0, 0
        return float(self.input_scale), 0 if self.input_zero_point is None else int(self.input_zero_point)

    def input_qparams(self, x: Tensor) -> tuple[Tensor, Tensor, QuantSpec]:
        """Scale and zero point for the activations `x` [..., in], and the spec by which they are applied to it."""
        if not self.static:
            return *functional.choose_qparams(x, self.activations), self.activations
        each_row = replace(self.activations, granularity="token", dynamic=True)
        return *functional.static_qparams(x, self.input_scale, self.input_zero_point), each_row

    @property
    def row_scaled(self) -> bool:
        """Symmetric with one scale a row (or one in all): the scale can be applied after the product."""
        return self.spec.symmetric and not self.spec.codebook and self.spec.granularity in ("channel", "tensor")

    @property
    def integer_rows(self) -> bool:
        """`row_scaled`, and the product is one of integers."""
        return self.row_scaled and self.spec.kind == "int"

    def row_scale(self) -> Tensor:
        """float32 [out]; defined if `row_scaled`."""
        return self.scale.float().reshape(-1).expand(self.shape[0]).contiguous()

    def dequantized(self) -> Tensor:
        """The float32 weight [out, in] that the integers stand for."""
        scale = self.scale.float()
        zero_point = torch.zeros_like(scale) if self.zero_point is None else self.zero_point.float()
        return functional.dequantize(self.integers, scale, zero_point, self.spec)
