"""Which form a quantized linear takes in which kind of file: one table, from how it computes to what records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from ..errors import ExportError
from ..kernels.weights import LinearWeights
from .recording import BlockedWeights, DequantizedWeights, DynamicIntegers, PlainIntegers, StaticIntegers

Form = Callable[[LinearWeights], nn.Module]

WEIGHT_ONLY, BLOCKS, DYNAMIC, STATIC, FP8 = "weight-only", "blocks", "dynamic", "static", "static fp8"

ONNX_RUNTIME: Mapping[str, Form] = {
    WEIGHT_ONLY: BlockedWeights,
    BLOCKS: BlockedWeights,
    DYNAMIC: DynamicIntegers,
    STATIC: StaticIntegers,
}
OPENVINO: Mapping[str, Form] = {
    WEIGHT_ONLY: DequantizedWeights,
    DYNAMIC: DequantizedWeights,  # the runtime quantizes the rows
    STATIC: StaticIntegers,
}
TENSORRT: Mapping[str, Form] = {WEIGHT_ONLY: DequantizedWeights, STATIC: StaticIntegers, FP8: StaticIntegers}
MNN: Mapping[str, Form] = {WEIGHT_ONLY: PlainIntegers, BLOCKS: PlainIntegers, DYNAMIC: PlainIntegers}


def kind_of(weights: LinearWeights) -> str | None:
    """How a linear computes, as the tables above call it; None for what ONNX has no operators for (codebooks)."""
    spec, activations = weights.spec, weights.activations
    if spec.codebook or (spec.kind == "float" and not weights.static):
        return None
    if not weights.row_scaled:
        blocked = activations is None and spec.kind == "int" and spec.bits in (4, 8)
        return BLOCKS if blocked else None
    if activations is None:
        return WEIGHT_ONLY
    if activations.kind == "float":
        return FP8
    return STATIC if weights.static else DYNAMIC
