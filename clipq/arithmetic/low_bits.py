"""The named precisions of fewer than 8 bits. What they cost in accuracy: measure it with `clipq eval` before use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .schemes import Scheme
from .specs import QuantSpec

_PATCHES = ("visual.conv1", "*patch_embed*")
"""The patch embedding, as the hosts call it: pixels are not normalised, and it is small; it stays at 8 bits."""
_GROUP = QuantSpec(
    symmetric=False,
    granularity="group",
    group_size=64,
    bits=4,
    float_zero_point=True,
    group_size_fallback="adjust",
)
_INT8_WEIGHTS = Scheme("int8-weight-only")
_TOKEN = QuantSpec(symmetric=False, granularity="token")
_INT8 = Scheme("int8", activations=_TOKEN)


def _weight_only(name: str, spec: QuantSpec, *steps: str) -> Scheme:
    return Scheme(name, spec, steps=steps, exceptions=tuple((pattern, _INT8_WEIGHTS) for pattern in _PATCHES))


LOW_BITS: Mapping[str, Scheme] = {
    "int4": _weight_only("int4", _GROUP, "fit-scales"),
    "int4-gptq": _weight_only("int4-gptq", _GROUP, "gptq-in-order"),
    "nf4": _weight_only("nf4", replace(_GROUP, symmetric=True, float_zero_point=False, codebook="nf4")),
    "int3": _weight_only("int3", replace(_GROUP, bits=3), "gptq-in-order"),
    "int2": _weight_only("int2", replace(_GROUP, bits=2, group_size=32), "gptq-in-order"),
    "w4a8": Scheme(
        "w4a8",
        QuantSpec(bits=4),
        _TOKEN,
        steps=("turn-values", "gptq-in-order"),
        exceptions=tuple((pattern, _INT8) for pattern in _PATCHES),
    ),
}
