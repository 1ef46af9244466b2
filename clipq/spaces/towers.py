"""`TowerSpace`: one tower with everything about its space that does not depend on how it is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..arithmetic.schemes import Scheme
from ..inputs.scaling import DECODE, smallest_of
from ..inputs.settings import OPENAI_MEAN, OPENAI_STD
from .architectures import without
from .space import Space, digest_of, plain
from .tensors import alone

_NOT_PIXELS = (
    ("processor_class", "feature_extractor_type", "auto_map", "device", "data_format", "input_data_format")
    + ("return_tensors", "disable_grouping", "_valid_processor_keys")
)  # fmt: skip
_NOT_IDS = ("transformers_version", "name_or_path", "model_max_length", "processor_class", "auto_map", "backend")
_NOT_IDS += ("is_local", "local_files_only", "clean_up_tokenization_spaces")
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_OPEN_CLIP = {
    "mode": "RGB", "mean": OPENAI_MEAN, "std": OPENAI_STD, "interpolation": "bicubic", "resize_mode": "shortest",
    "fill_color": 0,
}  # fmt: skip
"""What open_clip's `PreprocessCfg` (3.3) takes where nothing is said."""
_TOKENIZERS = {"reduction_mask": "", "strip_sep_token": False, "tokenizer_mode": ""}
"""As `_OPEN_CLIP`, of tokenizers."""
_SIDES = {"direction": "Right", "pad_to_multiple_of": None}
"""What a tokenizer.json usually says of how texts are cut and padded."""


@dataclass(frozen=True)
class TowerSpace:
    """One tower. `weights` and `tokenizer_files` are sha256 (hex), the rest is as a file's header has it.

    architecture: what `architectures.architecture` gives. quantized: names of the tower's modules that quantization
    replaced, as the recipe has them. preprocessing: {} for a model that came without. tokenizer: None without.
    """

    tower: str
    weights: str
    scheme: Scheme
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    tokenizer: Mapping[str, Any] | None = None
    tokenizer_files: str | None = None
    quantized: Iterable[str] = ()

    def space(self, decode: str = DECODE, normalized: bool = True) -> Space:
        """The space of vectors made so. decode: of `inputs.scaling.DECODES`; of texts it says nothing."""
        image = self.tower == "image"
        return Space(
            {
                "weights": self.weights,
                "scheme": self._scheme(),
                "architecture": dict(self.architecture),
                "tower": self.tower,
                "preprocessing": _preprocessing(self.preprocessing) if image else None,
                "tokenizer": None if image else self._tokenizer(),
                "decode": self._decode(decode) if image else None,
                "normalized": bool(normalized),
            }
        )

    def _decode(self, decode: str) -> str:
        """Where nothing is known of the preprocessing, "scaled" decodes every pixel too."""
        return DECODE if smallest_of(self.preprocessing, decode) is None else decode

    def _tokenizer(self) -> dict[str, Any] | None:
        if self.tokenizer is None:
            return None
        files = {} if self.tokenizer_files is None else {"files": self.tokenizer_files}
        return {**without(_said(self.tokenizer), _TOKENIZERS), **files}

    def _scheme(self) -> dict[str, Any]:
        """How modules are computed, and which of them otherwise: what stayed float shows in the weights."""
        others = {name: self.scheme.at(name) for name in self.quantized if self.scheme.at(name) is not self.scheme}
        if not others:
            return _computed(self.scheme, self.tower)
        each = digest_of({alone(name): _computed(one, self.tower) for name, one in others.items()})
        return {**_computed(self.scheme, self.tower), "exceptions": {"count": len(others), "sha256": each}}


def _computed(scheme: Scheme, tower: str) -> dict[str, Any]:
    """Without the name, and the steps that chose the numbers, which are in the weights; pictures have no tokens."""
    left_out = ("name", "steps", "exceptions", *(("embeddings",) if tower == "image" else ()))
    values = {key: value for key, value in scheme.to_dict().items() if key not in left_out}
    return plain({**values, "attention": scheme.attention})


def _preprocessing(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    found = {key: value for key, value in _said(settings).items() if key not in _NOT_PIXELS}
    if found.get("kind") == "open_clip":
        found = without(found, _OPEN_CLIP)
        if isinstance(found.get("size"), int):
            found["size"] = [found["size"], found["size"]]
    return found or None


def files_digest(files: Mapping[str, str]) -> str | None:
    """sha256 (hex) of a tokenizer's files, without what its own library notes of itself; None without files."""
    if not files:
        return None
    return digest_of({name: hashlib.sha256(_ids_only(name, body).encode()).hexdigest() for name, body in files.items()})


def _ids_only(name: str, body: str) -> str:
    if name == _TOKENIZER:
        return _unpadded(body)
    try:
        values = json.loads(body) if name == _TOKENIZER_CONFIG else None
    except (ValueError, RecursionError):
        return body
    if not isinstance(values, dict):
        return body
    return digest_of({key: value for key, value in _said(values).items() if key not in _NOT_IDS})


def _unpadded(body: str) -> str:
    """A tokenizer.json without how texts were cut and padded last, which is noted in front; how is said by each call.

    The sides stay, which transformers takes from there. Read is the front alone: some of these files have 34 MB.
    """
    front = body.partition('"added_tokens"')[0]
    try:
        values = json.loads(front.rstrip().removesuffix(",") + "}")
        sides = [_said(values.pop(key, None) or {}) for key in ("truncation", "padding")]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return body
    kept = [{name: side[name] for name in _SIDES if name in side} for side in sides]
    return digest_of([values, [without(side, _SIDES) for side in kept]]) + body[len(front) :]


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON, without what is null: that says nothing."""
    return {key: one for key, one in plain(values).items() if one is not None}
