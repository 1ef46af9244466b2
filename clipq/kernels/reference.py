"""The reference kernels in plain torch: any device, any scheme, no promise of speed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arithmetic import functional
from .ops import refuse_gradient
from .weights import LinearWeights


class _PlainTorch:
    """What runs on every device."""

    def __init__(self, weights: LinearWeights):
        self.weights = weights

    @staticmethod
    def obstacle(device: torch.device) -> str | None:
        return None


class ReferenceLinear(_PlainTorch):
    """Quantize and dequantize the activations, multiply in float32 by the dequantized weights."""

    name = "reference"

    @staticmethod
    def fits(weights: LinearWeights) -> bool:
        return weights.activations is not None

    def __call__(self, x: Tensor) -> Tensor:
        refuse_gradient(x)
        bias = self.weights.bias
        rows = functional.fake_quantize(x, self.weights.activations)
        y = F.linear(rows, self.weights.dequantized(), None if bias is None else bias.float())
        return y.to(x.dtype)


class WeightOnlyLinear(_PlainTorch):
    """W8A16, W4A16 and the like: dequantize the weights to the activations' precision, then the float product."""

    name = "dequantize"

    @staticmethod
    def fits(weights: LinearWeights) -> bool:
        return weights.activations is None

    def __call__(self, x: Tensor) -> Tensor:
        bias = self.weights.bias
        return F.linear(x, self.weights.dequantized().to(x.dtype), None if bias is None else bias.to(x.dtype))
