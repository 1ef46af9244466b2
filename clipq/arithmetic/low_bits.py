"""The named precisions of fewer than 8 bits. What they cost in accuracy: measure it with `clipq eval` before use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .schemes import Scheme
from .specs import QuantSpec

_PATCHES = ("visual.conv1", "*patch_embed*")
"""The patch embedding, as the hosts call it: pixels are not normalised, and it is small; it stays at 8 bits."""
_FIRST_BLOCK = ("*blocks.0.*", "*layers.0.*", "*layer.0.*")
"""What all other blocks build on: at 8 bits it costs an eighth to a quarter of a bit for each weight of the model."""
_GROUP = QuantSpec(
    symmetric=False,
    granularity="group",
    group_size=64,
    bits=4,
    float_zero_point=True,
    group_size_fallback="adjust",
)
_INT8_WEIGHTS = Scheme("int8-weight-only")
TOKEN = QuantSpec(symmetric=False, granularity="token")
_INT8 = Scheme("int8", activations=TOKEN)


def _weight_only(name: str, spec: QuantSpec, *steps: str, kept: tuple[str, ...] = _PATCHES) -> Scheme:
    """Weights by `spec`, those of the modules called `kept` as int8 per channel; activations float."""
    return Scheme(name, spec, steps=steps, exceptions=tuple((pattern, _INT8_WEIGHTS) for pattern in kept))


LOW_BITS: Mapping[str, Scheme] = {
    "int4": _weight_only("int4", _GROUP, "fit-scales", kept=_PATCHES + _FIRST_BLOCK),
    "int4-gptq": _weight_only("int4-gptq", _GROUP, "gptq-in-order", kept=_PATCHES + _FIRST_BLOCK),
    "nf4": _weight_only("nf4", replace(_GROUP, symmetric=True, float_zero_point=False, codebook="nf4"), "fit-scales"),
    "int3": _weight_only("int3", replace(_GROUP, bits=3), "gptq-in-order"),
    "int2": _weight_only("int2", replace(_GROUP, bits=2, group_size=32), "gptq-in-order"),
    "w4a8": Scheme(
        "w4a8",
        QuantSpec(bits=4),
        TOKEN,
        steps=("turn-values", "gptq-in-order"),
        exceptions=tuple((pattern, _INT8) for pattern in _PATCHES),
        attention="int8",
    ),
}

ABOUT_LOW_BITS: Mapping[str, str] = {
    "int4": "W4A16 in groups of 64, fitted to the weights without data; the first block in 8 bits",
    "int4-gptq": "W4A16 in groups of 64, by GPTQ on a hundred pictures or texts; the first block in 8 bits",
    "nf4": "W4A16 in groups of 64, QLoRA's 16 quantiles of a normal distribution; needs no data",
    "int3": "an experiment: W3A16 in groups of 64, by GPTQ",
    "int2": "an experiment: W2A16 in groups of 32, by GPTQ",
    "w4a8": "W4A8: weights per channel by GPTQ, activations as in int8; on int8's kernels, in half its file",
}
