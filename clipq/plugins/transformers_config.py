"""`clipq.ClipqConfig`: what transformers is given, or reads in a config.json, to quantize a model with clipq."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from ..arithmetic.precisions import Precision, Precisions, per_tower
from ..arithmetic.schemes import Scheme
from ..errors import SchemeError

METHOD = "clipq"
"""The `quant_method` of a config.json."""

_PRECISION, _FALLBACK = "precision", "fallback"


class ClipqConfig(QuantizationConfigMixin):
    """For `from_pretrained(name, quantization_config=ClipqConfig("int8"))` of transformers: as `clipq.quantize` does.

    `precision`: a name, a `clipq.Scheme`, or {"image": ..., "text": ...}; or `image=` and `text=` by themselves (a
    tower that is not named stays fp32). `fallback`: the precision of what stays float in a quantized tower.
    `processor`: what AutoProcessor loads; only precisions that look at inputs ("int8-best", "int8-static") need it,
    to prepare clipq's own photos and captions. To calibrate on other data, use `clipq.quantize` on the float model.

    Raises `UnknownNameError` for a precision that does not exist, `SchemeError` for two answers for one tower.
    """

    def __init__(
        self,
        precision: Precisions | None = None,
        *,
        image: Precision | None = None,
        text: Precision | None = None,
        fallback: str | None = None,
        processor: Any = None,
    ):
        named = {tower: one for tower, one in (("image", image), ("text", text)) if one is not None}
        if named and precision is not None:
            raise SchemeError(
                f"ClipqConfig({precision!r}, {', '.join(f'{k}={v!r}' for k, v in named.items())}) has two answers; "
                "give one precision for both towers, or image= and text=."
            )
        self.quant_method = METHOD
        self.precision: Precisions = named or ("int8" if precision is None else precision)
        self.fallback, self.processor = fallback, processor
        self.label: dict[str, Any] = {}
        per_tower(self.precision, fallback)  # a wrong name is found now

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """From the `quantization_config` of a config.json, or from {"quant_method": "clipq", "precision": "int8"}."""
        precision, fallback = config_dict.get(_PRECISION), config_dict.get(_FALLBACK)
        config = cls(_from_json(precision), fallback=fallback)
        known = ("quant_method", _PRECISION, _FALLBACK)
        config.label = {k: v for k, v in config_dict.items() if k not in known}
        return (config, kwargs) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what was asked for or, of a model that is quantized, what config.json says of it."""
        if self.label:
            return {"quant_method": METHOD, **self.label}
        asked = {"quant_method": METHOD, _PRECISION: _to_json(self.precision), _FALLBACK: self.fallback}
        return {key: value for key, value in asked.items() if value is not None}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        yield from self.to_dict().items()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClipqConfig) and self.to_dict() == other.to_dict()

    __hash__ = None


def _to_json(precision: Precisions) -> Any:
    if isinstance(precision, Mapping):
        return {tower: _to_json(one) for tower, one in precision.items()}
    return precision.to_dict() if isinstance(precision, Scheme) else precision


def _from_json(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if "weights" in value:
        return Scheme.from_dict(value)
    return {tower: _from_json(one) for tower, one in value.items()}
