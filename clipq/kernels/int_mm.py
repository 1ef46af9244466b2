"""W8A8 through `torch._int_mm`: oneDNN on x86 CPUs with int8 dot products (VNNI, AMX), cuBLASLt on CUDA.

Without those instructions torch runs a scalar loop, tens of times slower than float32, and the kernel is not offered.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arithmetic import functional
from ..machine import cpu_flags
from .ops import refuse_gradient
from .weights import LinearWeights

_DOT_PRODUCTS = {"avx512_vnni", "amx_int8"}
_CUDA_MIN_ROWS = 17  # cuBLASLt's int8 product refuses 16 rows and fewer
_CUDA_MULTIPLE = 8  # ... and inner or outer sizes that are no multiple of this


class IntMMLinear:
    """Integer sums first, then y = (q_x q_w - zero_point_x sum(q_w)) scale_w scale_x + bias in float32."""

    name = "int_mm"

    def __init__(self, weights: LinearWeights):
        self.weights = weights
        self.qweight = weights.integers
        self.scale = weights.row_scale()
        # The zero point is the same for a whole row of x, so its product with the weights is one sum per channel.
        self.sums = self.qweight.sum(dim=1, dtype=torch.int32)
        self.bias = None if weights.bias is None else weights.bias.float()

    @staticmethod
    def obstacle(device: torch.device) -> str | None:
        if device.type == "cuda" or (device.type == "cpu" and cpu_flags() & _DOT_PRODUCTS):
            return None
        return f"torch._int_mm is fast only on CUDA and on CPUs with one of {', '.join(sorted(_DOT_PRODUCTS))}"

    @staticmethod
    def fits(weights: LinearWeights) -> bool:
        cuda_shape = all(size % _CUDA_MULTIPLE == 0 for size in weights.shape)
        return (
            weights.integer_rows and weights.activations is not None and (weights.device.type != "cuda" or cuda_shape)
        )

    def __call__(self, x: Tensor) -> Tensor:
        refuse_gradient(x)
        rows = x.reshape(-1, x.shape[-1])
        scale, zero_point, spec = self.weights.input_qparams(rows)
        product = self._product(functional.quantize(rows, scale, zero_point, spec))
        if not spec.symmetric:
            product = product - zero_point.int() * self.sums
        y = product * self.scale * scale
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype).reshape(*x.shape[:-1], self.qweight.shape[0])

    def _product(self, q: Tensor) -> Tensor:
        missing = max(_CUDA_MIN_ROWS - q.shape[0], 0) if q.is_cuda else 0
        if missing:
            return torch._int_mm(F.pad(q, (0, 0, 0, missing)), self.qweight.t())[: q.shape[0]]
        return torch._int_mm(q, self.qweight.t())
