"""What a kernel gets: the tensors of one quantized linear and how they are meant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..arithmetic import functional
from ..arithmetic.specs import QuantSpec


@dataclass(frozen=True)
class LinearWeights:
    """int8 or fp8 `qweight` [out, in] with its float32 `scale`, optional int8 `zero_point`, optional `bias` [out]."""

    qweight: Tensor
    scale: Tensor
    zero_point: Tensor | None
    bias: Tensor | None
    spec: QuantSpec
    activations: QuantSpec | None

    @property
    def device(self) -> torch.device:
        return self.qweight.device

    @property
    def row_scaled(self) -> bool:
        """Symmetric with one scale a row (or one in all): the scale can be applied after the product."""
        return self.spec.symmetric and self.spec.granularity in ("channel", "tensor")

    @property
    def integer_rows(self) -> bool:
        """`row_scaled`, and the product is one of integers."""
        return self.row_scaled and self.spec.kind == "int"

    def row_scale(self) -> Tensor:
        """float32 [out]; defined if `row_scaled`."""
        return self.scale.float().reshape(-1).expand(self.qweight.shape[0]).contiguous()

    def dequantized(self) -> Tensor:
        """The float32 weight [out, in] that the stored one stands for."""
        zero_point = torch.zeros_like(self.scale) if self.zero_point is None else self.zero_point.float()
        return functional.dequantize(self.qweight, self.scale.float(), zero_point, self.spec)
