"""The precisions by name, and what a user may give in their place: a scheme, or one for each tower."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..errors import unknown_name
from .low_bits import ABOUT_LOW_BITS, LOW_BITS, TOKEN
from .schemes import Scheme
from .specs import QuantSpec

FLOATS = ("fp32", "bf16", "fp16")
TOWERS = ("image", "text")
AUTO = "auto"
"""Where a model is loaded: the precision that a short measurement on its device recommends (`clipq.loading.worth`)."""


def _float(name: str) -> Scheme:
    return Scheme(name, weights=None, embeddings=None, fallback=name)


def _int8(name: str, activations: QuantSpec, *steps: str) -> Scheme:
    """W8A8, attention in whole numbers too."""
    return Scheme(name, activations=activations, steps=steps, attention="int8")


_STATIC = QuantSpec(symmetric=False, granularity="tensor", dynamic=False)
_OBSERVED = ("turn-values", "observe-fisher", "correct-biases")

PRECISIONS: Mapping[str, Scheme] = {
    **{name: _float(name) for name in FLOATS},
    "int8": _int8("int8", TOKEN),
    "int8-best": _int8("int8-best", TOKEN, "turn-values", "smooth", "gptq", "correct-biases"),
    "int8-symmetric": _int8("int8-symmetric", QuantSpec(granularity="token")),
    "int8-static": _int8("int8-static", _STATIC, *_OBSERVED),
    "int8-static-symmetric": _int8("int8-static-symmetric", replace(_STATIC, symmetric=True), *_OBSERVED),
    "int8-static-minmax": _int8("int8-static-minmax", replace(_STATIC, symmetric=True), "observe-minmax"),
    "int8-weight-only": Scheme("int8-weight-only"),
    **LOW_BITS,
    "fp8": Scheme("fp8", weights=QuantSpec(kind="float"), activations=QuantSpec(granularity="token", kind="float")),
    "fp8-static": Scheme(
        "fp8-static",
        weights=QuantSpec(kind="float"),
        activations=QuantSpec(granularity="tensor", dynamic=False, kind="float"),
        steps=("observe-minmax",),
    ),
}

ABOUT: Mapping[str, str] = {
    "fp32": "32-bit floats: what the others are measured against",
    "bf16": "16-bit floats of fp32's range: half the size, fast on new processors",
    "fp16": "16-bit floats: half the size, the default on GPUs for what stays float",
    "int8": "W8A8: weights int8 per channel, activations int8 per token, ranges at run time; the default",
    "int8-best": "int8 at the same speed, its numbers chosen by looking at a hundred pictures or texts",
    "int8-symmetric": "int8 without zero points: for targets that have none",
    "int8-static": "int8 with one range for each linear's inputs, found by looking at a hundred pictures or texts",
    "int8-static-symmetric": "int8-static without zero points: for TensorRT and other targets that have none",
    "int8-static-minmax": "int8-static by the least and largest value seen: what plain calibration costs, as a warning",
    "int8-weight-only": "W8A16: a quarter of the size, computed in floats",
    **ABOUT_LOW_BITS,
    "fp8": "8-bit floats (e4m3) for weights and activations: for GPUs that multiply them; emulated elsewhere",
    "fp8-static": "fp8 with one range for each linear's inputs: for TensorRT",
}
"""Each precision in a line."""

Precision = str | Scheme
Precisions = Precision | Mapping[str, Precision]


def resolve(precision: Precision, fallback: str | None = None, also: tuple[str, ...] = ()) -> Scheme:
    """The `Scheme` for a name or a scheme, with another fallback precision if given.

    `also`: names that are allowed where the precision was given, for the error's list.
    """
    scheme = PRECISIONS.get(precision) if isinstance(precision, str) else precision
    if not isinstance(scheme, Scheme):
        hint = f"{AUTO!r} is measured where a model is loaded, by clipq.load." if precision == AUTO else ""
        raise unknown_name("precision", precision, (*PRECISIONS, *also), hint or "Or pass a clipq.Scheme.")
    if fallback is None:
        return scheme
    changed = replace(scheme, fallback=fallback)  # refuses an unknown name, also where it would not be used
    return scheme if scheme.is_float else changed


def per_tower(precision: Precisions, fallback: str | None = None) -> dict[str, Scheme]:
    """One scheme for each tower from a name, a `Scheme`, or {"image": ..., "text": ...} (a missing tower is fp32)."""
    return {tower: resolve(one, fallback) for tower, one in _by_tower(precision).items()}


def auto_towers(precision: Precisions) -> tuple[str, ...]:
    """The towers for which `precision` asks for "auto". Raises `UnknownNameError` for a name that is none."""
    found = _by_tower(precision)
    for one in found.values():
        if one != AUTO:
            resolve(one, also=(AUTO,))
    return tuple(tower for tower, one in found.items() if one == AUTO)


def without_auto(precision: Precisions, answers: Mapping[str, Precision]) -> Precisions:
    """`precision` with the answer for a tower (fp32 where there is none) in place of "auto"; one name if all agree."""
    found = {k: answers.get(k, "fp32") if one == AUTO else one for k, one in _by_tower(precision).items()}
    first, *others = found.values()
    return first if all(one == first for one in others) else found


def check_towers(names: Iterable[str]) -> None:
    """Raise `UnknownNameError` for a name that is no tower's."""
    for name in names:
        if name not in TOWERS:
            raise unknown_name("tower", name, TOWERS)


def _by_tower(precision: Precisions) -> dict[str, Precision]:
    if not isinstance(precision, Mapping):
        return dict.fromkeys(TOWERS, precision)
    check_towers(precision)
    return {tower: precision.get(tower, "fp32") for tower in TOWERS}
