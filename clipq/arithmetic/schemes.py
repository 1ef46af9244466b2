"""What to quantize and how: `QuantSpec`, `Scheme`, and the named precisions.

The vocabulary is compressed-tensors': symmetric, granularity (there: strategy), dynamic; `int8` is its W8A8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import SchemeError, unknown_name

GRANULARITIES = ("tensor", "channel", "token", "group")
FALLBACKS = ("auto", "fp32", "fp16", "bf16")
FLOATS = ("fp32", "bf16", "fp16")
TOWERS = ("image", "text")
AUTO = "auto"
"""Where a model is loaded: the precision that a short measurement on its device recommends (`clipq.loading.worth`)."""


@dataclass(frozen=True)
class QuantSpec:
    """How one tensor becomes int8.

    `granularity` says what shares a scale: the whole tensor, an output channel (row of a weight [out, in]),
    a token (row of an activation [tokens, in]) or a group of `group_size` consecutive inputs within a row.
    Symmetric values use [-127, 127] and no zero point; asymmetric ones [-128, 127] and an int8 zero point.
    """

    symmetric: bool = True
    granularity: str = "channel"
    group_size: int | None = None
    bits: int = 8

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise unknown_name("granularity", self.granularity, GRANULARITIES)
        if self.bits != 8:
            raise SchemeError(f"bits={self.bits} is not supported; clipq quantizes to 8 bits.")
        if not isinstance(self.symmetric, bool):
            raise SchemeError(f"symmetric={self.symmetric!r} is not allowed; give True or False.")
        if (self.granularity == "group") != (self.group_size is not None):
            raise SchemeError(
                f"granularity={self.granularity!r} with group_size={self.group_size}: "
                'give group_size (a positive integer) with granularity="group", and only there.'
            )
        if self.group_size is not None and (type(self.group_size) is not int or self.group_size < 1):
            raise SchemeError(f"group_size={self.group_size!r} is not allowed; give a positive integer such as 64.")

    @property
    def qmin(self) -> int:
        return -127 if self.symmetric else -128

    @property
    def qmax(self) -> int:
        return 127


@dataclass(frozen=True)
class Scheme:
    """How a tower is quantized.

    `weights` None means a float tower in the precision `fallback`. `activations` None with int8 weights means
    weight-only (W8A16). Activations are quantized dynamically: their range is measured at run time.
    `fallback` is the precision of LayerNorm, softmax, activation functions and the residual stream; "auto" is fp16
    where the device computes fp16 natively and fp32 elsewhere. `embeddings`: the token embedding, one scale a row.
    """

    name: str
    weights: QuantSpec | None = QuantSpec()
    activations: QuantSpec | None = None
    embeddings: QuantSpec | None = QuantSpec()
    fallback: str = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise SchemeError(f"name={self.name!r} is not allowed; give a short text.")
        if self.fallback not in FALLBACKS:
            raise unknown_name("fallback precision", self.fallback, FALLBACKS)
        if self.weights is None and (self.activations or self.embeddings):
            raise SchemeError(f"scheme {self.name!r} quantizes activations or embeddings but not weights; add weights.")
        if self.weights is not None and self.weights.granularity == "token":
            raise SchemeError('weights have channels, not tokens: use granularity="channel" for them.')
        if self.activations is not None and self.activations.granularity not in ("tensor", "token"):
            raise SchemeError(
                f"activations with granularity={self.activations.granularity!r} are not supported; "
                'use "token" (one scale a row, the default) or "tensor".'
            )
        if self.embeddings is not None and self.embeddings != QuantSpec():
            raise SchemeError(
                "embeddings are int8 with one symmetric scale a row (QuantSpec()), or None to stay float."
            )

    @property
    def is_float(self) -> bool:
        return self.weights is None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scheme:
        """The inverse of `to_dict`; raises `SchemeError` on unknown or missing fields."""
        try:
            specs = {k: QuantSpec(**values[k]) if values[k] else None for k in ("weights", "activations", "embeddings")}
            return cls(**{**values, "fallback": values["fallback"], **specs})
        except (KeyError, TypeError) as error:
            raise SchemeError(f"not a quantization scheme: {values!r} ({error}).") from error


def _float(name: str) -> Scheme:
    return Scheme(name, weights=None, embeddings=None, fallback=name)


PRECISIONS: Mapping[str, Scheme] = {
    **{name: _float(name) for name in FLOATS},
    "int8": Scheme("int8", activations=QuantSpec(symmetric=False, granularity="token")),
    "int8-symmetric": Scheme("int8-symmetric", activations=QuantSpec(granularity="token")),
    "int8-weight-only": Scheme("int8-weight-only"),
}

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


def _by_tower(precision: Precisions) -> dict[str, Precision]:
    if not isinstance(precision, Mapping):
        return dict.fromkeys(TOWERS, precision)
    for tower in precision:
        if tower not in TOWERS:
            raise unknown_name("tower", tower, TOWERS)
    return {tower: precision.get(tower, "fp32") for tower in TOWERS}
