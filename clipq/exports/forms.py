"""Which form a quantized linear takes in which kind of file: one table, from how it computes to what records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from ..arithmetic.precisions import PRECISIONS
from ..arithmetic.specs import QuantSpec
from ..kernels.weights import LinearWeights
from .recording import BlockedWeights, DequantizedWeights, DynamicIntegers, PlainIntegers, StaticIntegers

Form = Callable[[LinearWeights], nn.Module]

WEIGHT_ONLY, BLOCKS = "weight-only", "weight-only in groups"
DYNAMIC, STATIC, STATIC_SYMMETRIC, FP8 = "dynamic", "static", "symmetric static", "static fp8"

ONNX_RUNTIME: Mapping[str, Form] = {
    WEIGHT_ONLY: BlockedWeights,
    BLOCKS: BlockedWeights,
    DYNAMIC: DynamicIntegers,
    STATIC: StaticIntegers,
    STATIC_SYMMETRIC: StaticIntegers,
}
OPENVINO: Mapping[str, Form] = {
    WEIGHT_ONLY: DequantizedWeights,
    DYNAMIC: DequantizedWeights,  # the runtime quantizes the rows
    STATIC: StaticIntegers,
    STATIC_SYMMETRIC: StaticIntegers,
}
TENSORRT: Mapping[str, Form] = {
    WEIGHT_ONLY: DequantizedWeights,
    STATIC_SYMMETRIC: StaticIntegers,
    FP8: StaticIntegers,
}
MNN: Mapping[str, Form] = {WEIGHT_ONLY: PlainIntegers, BLOCKS: PlainIntegers, DYNAMIC: PlainIntegers}


def kind_of(weights: QuantSpec, activations: QuantSpec | None) -> str | None:
    """How a linear computes, as the tables above call it; None for what ONNX has no operators for (codebooks)."""
    if weights.codebook or not weights.symmetric or weights.granularity == "group":
        blocked = activations is None and weights.kind == "int" and not weights.codebook and weights.bits in (4, 8)
        return BLOCKS if blocked else None
    if activations is None:
        return WEIGHT_ONLY if weights.kind == "int" else None
    if activations.kind == "float":
        return None if activations.dynamic else FP8
    if activations.dynamic:
        return DYNAMIC
    return STATIC_SYMMETRIC if activations.symmetric else STATIC


def precisions_for(forms: Mapping[str, Form]) -> list[str]:
    """The named precisions of which every part has a form."""
    found = []
    for name, scheme in PRECISIONS.items():
        parts = () if scheme.is_float else (scheme, *(own for _, own in scheme.exceptions))
        if parts and all(kind_of(one.weights, one.activations) in forms for one in parts):
            found.append(name)
    return found
