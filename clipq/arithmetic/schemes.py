"""How a tower is quantized: `Scheme`; as in compressed-tensors, `int8` is W8A8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from ..errors import SchemeError, unknown_name
from .specs import QuantSpec

FALLBACKS = ("auto", "fp32", "fp16", "bf16")
ATTENTIONS = ("float", "int8")
_SPECS = ("weights", "activations", "embeddings")


@dataclass(frozen=True)
class Scheme:
    """How a tower is quantized.

    `weights` None means a float tower in the precision `fallback`. `activations` None with quantized weights means
    weight-only (W8A16, W4A16). Activations are quantized dynamically (their range is measured at run time) or, with
    `dynamic=False`, statically: a step such as "observe-fisher" measures it once, on calibration data.
    `fallback` is the precision of LayerNorm, softmax, activation functions and the residual stream; "auto" is fp16
    where the device computes fp16 natively and fp32 elsewhere. `embeddings`: the token embedding, one scale a row.
    `attention`: how the native library multiplies queries, keys and values where it runs whole blocks: in floats or,
    for sequences of 128 tokens and more, in whole numbers (`csrc/attention_int8.h`); everyone else computes floats.
    `steps`: how the numbers are chosen, in order: names of `clipq.methods.steps`; none of them: rounding to nearest.
    `exceptions`: (pattern, scheme) pairs; the first pattern that a module's name matches (as file names match "*")
    says how that module is quantized, or that it stays float. They have neither steps nor exceptions of their own.
    """

    name: str
    weights: QuantSpec | None = QuantSpec()
    activations: QuantSpec | None = None
    embeddings: QuantSpec | None = QuantSpec()
    fallback: str = "auto"
    steps: tuple[str, ...] = ()
    exceptions: tuple[tuple[str, Scheme], ...] = ()
    attention: str = "float"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise SchemeError(f"name={self.name!r} is not allowed; give a short text.")
        if self.fallback not in FALLBACKS:
            raise unknown_name("fallback precision", self.fallback, FALLBACKS)
        if self.attention not in ATTENTIONS:
            raise unknown_name("attention", self.attention, ATTENTIONS)
        if self.weights is None and (self.activations or self.embeddings):
            raise SchemeError(f"scheme {self.name!r} quantizes activations or embeddings but not weights; add weights.")
        if self.weights is not None and self.weights.granularity == "token":
            raise SchemeError('weights have channels, not tokens: use granularity="channel" for them.')
        if self.activations is not None and self.activations.is_packed:
            raise SchemeError(f"activations of {self.activations.bits} bits are not supported; use 8, or None (float).")
        if self.weights is not None and not self.weights.dynamic:
            raise SchemeError("weights are there before any input is: dynamic is for activations; leave it out here.")
        if self.activations is not None and self.activations.granularity not in ("tensor", "token"):
            raise SchemeError(
                f"activations with granularity={self.activations.granularity!r} are not supported; "
                'use "token" (one scale a row, the default) or "tensor".'
            )
        if self.weights is not None and self.activations is not None and self.weights.kind != self.activations.kind:
            raise SchemeError(
                f"weights of kind {self.weights.kind!r} are not multiplied by activations of kind "
                f"{self.activations.kind!r}; give both the same."
            )
        if self.embeddings is not None and self.embeddings != QuantSpec():
            raise SchemeError(
                "embeddings are int8 with one symmetric scale a row (QuantSpec()), or None to stay float."
            )
        if not all(isinstance(step, str) for step in self.steps) or isinstance(self.steps, str):
            raise SchemeError(f"steps={self.steps!r} is not allowed; give a tuple of their names.")
        for pattern, scheme in self.exceptions:
            if not isinstance(pattern, str) or scheme.steps or scheme.exceptions:
                raise SchemeError(
                    f"the exception {pattern!r} of scheme {self.name!r} is not allowed; it needs a pattern of modules' "
                    "names, and a scheme without steps and exceptions of its own."
                )

    def at(self, name: str) -> Scheme:
        """The scheme of the module called `name` (its path in the host's model)."""
        return next((scheme for pattern, scheme in self.exceptions if fnmatchcase(name, pattern)), self)

    @property
    def is_float(self) -> bool:
        return self.weights is None

    def to_dict(self) -> dict[str, Any]:
        """JSON values; without what older versions did not know where it is as it was then."""
        values = {key: value for key, value in self._fields() if key not in ("steps", "exceptions") or value}
        if self.attention == "float":
            del values["attention"]
        if self.exceptions:
            values["exceptions"] = [[pattern, scheme.to_dict()] for pattern, scheme in self.exceptions]
        return {**values, "steps": list(self.steps)} if self.steps else values

    def _fields(self) -> Iterator[tuple[str, Any]]:
        for one in fields(self):
            value = getattr(self, one.name)
            yield one.name, value.to_dict() if isinstance(value, QuantSpec) else value

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scheme:
        """The inverse of `to_dict`; raises `SchemeError` on unknown or missing fields."""
        try:
            specs = {k: QuantSpec(**values[k]) if values[k] else None for k in _SPECS}
            exceptions = tuple((pattern, cls.from_dict(one)) for pattern, one in values.get("exceptions", ()))
            steps = tuple(values.get("steps", ()))
            return cls(**{**values, "fallback": values["fallback"], **specs, "steps": steps, "exceptions": exceptions})
        except (KeyError, TypeError, ValueError) as error:
            raise SchemeError(f"not a quantization scheme: {values!r} ({error}).") from error
