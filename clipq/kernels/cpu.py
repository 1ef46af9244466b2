"""W8A8 through clipq's own native library on the CPU: exact int32 sums on every instruction set."""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import library
from ..native.steps import Linear
from . import native, ops
from .weights import LinearWeights


class NativeLinear:
    """Row quantization, integer product and dequantization in one call of the native library."""

    name = "native"

    def __init__(self, weights: LinearWeights, path: str | None = None):
        symmetric, static = weights.activations.symmetric, weights.static_range()
        parts = weights.integers, weights.row_scale(), weights.bias
        self._packed = native.PackedLinear(*parts, symmetric, path, static)

    @staticmethod
    def obstacle(device: torch.device) -> str | None:
        if device.type != "cpu":
            return "the native library computes on the CPU"
        return None if library.available() else library.why_not()

    @staticmethod
    def fits(weights: LinearWeights) -> bool:
        by_rows = weights.static or (weights.activations is not None and weights.activations.granularity == "token")
        return weights.integer_rows and by_rows and weights.shape[1] <= library.MAX_INPUTS

    @property
    def step(self) -> Linear:
        """The same linear over numpy's arrays, with the same packed bytes."""
        return self._packed.step

    def __call__(self, x: Tensor) -> Tensor:
        if ops.traced(x):
            return ops.call_linear(self._packed, x)
        ops.refuse_gradient(x)
        ops.refuse_tracing()
        return self._packed(x)
