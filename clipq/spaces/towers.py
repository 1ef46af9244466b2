"""`TowerSpace`: one tower with everything about its space that does not depend on how it is asked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..arithmetic.schemes import Scheme
from ..inputs.scaling import DECODE, smallest_of
from .space import Space, digest_of, plain

_PARTS = {"image": "vision", "text": "text"}
_NOT_COMPUTED = (
    ("timm_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout")
    + ("hf_model_pretrained", "hf_tokenizer_name", "tokenizer_kwargs", "text_mask")
)  # fmt: skip
"""Settings of open_clip's towers for training, and for finding weights and tokenizers."""
_COMPUTED = re.compile(
    "size|layers|heads|act|eps|dim|channels|pool|eos_token_id|use_head|theta|rope|ratio|bias|norm|register|gated|"
    "swiglu|position|layerscale|causal|model_type"
)
_OF_TRAINING = re.compile("init|drop|chunk|ngram|^pooler|^projection_dim|^gradient|^output_")
"""Of transformers' settings, those whose names hold one of the words of the first and none of the second: another
version of transformers writes other defaults of generation and training, which no embedding depends on. How wide a
projection is, its weights say."""
_NOT_PIXELS = (
    ("processor_class", "feature_extractor_type", "auto_map", "device", "data_format", "input_data_format")
    + ("return_tensors", "disable_grouping", "_valid_processor_keys")
)  # fmt: skip
_NOT_IDS = ("transformers_version", "name_or_path", "model_max_length", "processor_class", "auto_map", "backend")
_NOT_IDS += ("is_local", "local_files_only", "clean_up_tokenization_spaces")
_TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class TowerSpace:
    """One tower. `weights` and `tokenizer_files` are sha256 (hex), the rest is as a file's header has it.

    architecture: what `architecture` gives. preprocessing: {} for a model that came without. tokenizer: None without.
    """

    tower: str
    weights: str
    scheme: Scheme
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    tokenizer: Mapping[str, Any] | None = None
    tokenizer_files: str | None = None

    def space(self, decode: str = DECODE, normalized: bool = True) -> Space:
        """The space of vectors made so. decode: of `inputs.scaling.DECODES`; of texts it says nothing."""
        image = self.tower == "image"
        return Space(
            {
                "weights": self.weights,
                "scheme": _scheme(self.scheme),
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
        return {**_stated(plain(self.tokenizer)), **files}


def _scheme(scheme: Scheme) -> dict[str, Any]:
    """What is computed: without the name, and the steps that chose the numbers, which are in the weights."""
    values = {key: value for key, value in scheme.to_dict().items() if key not in ("name", "steps", "exceptions")}
    values["attention"] = scheme.attention
    if scheme.exceptions:
        each = [[pattern, _scheme(one)] for pattern, one in scheme.exceptions]
        values["exceptions"] = {"count": len(each), "sha256": digest_of(each)}
    return plain(values)


def architecture(host: str, config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    """The settings of a tower, of the host's configuration: those that decide what is computed, and are not the
    default of nothing at all (null, false, empty). The same for a model of this tower alone.
    """
    return {"host": host, **_ARCHITECTURES[host](plain(config), tower)}


def _open_clip(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    own = {key: value for key, value in (config.get(f"{_PARTS[tower]}_cfg") or {}).items() if key not in _NOT_COMPUTED}
    shared = {key: config.get(key) for key in ("embed_dim", "quick_gelu")}
    text = config.get("hf_text_config") if tower == "text" else None
    return _stated({**own, **shared, **({"hf_text_config": _of_transformers(text)} if text else {})})


def _timm(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    return _stated(config)


def _transformers(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    own = config.get(f"{_PARTS[tower]}_config")
    return _of_transformers(own if isinstance(own, Mapping) else config)


def _of_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    return _stated({k: v for k, v in config.items() if _COMPUTED.search(k) and not _OF_TRAINING.search(k)})


_ARCHITECTURES: Mapping[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "open_clip": _open_clip,
    "timm": _timm,
    "transformers": _transformers,
}


def _preprocessing(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    found = {key: value for key, value in plain(settings).items() if key not in _NOT_PIXELS and value is not None}
    if found.get("kind") == "open_clip" and isinstance(found.get("size"), int):
        found["size"] = [found["size"], found["size"]]
    return found or None


def files_digest(files: Mapping[str, str]) -> str | None:
    """sha256 (hex) of a tokenizer's files, without what its own library notes of itself; None without files."""
    if not files:
        return None
    return digest_of({name: hashlib.sha256(_ids_only(name, body).encode()).hexdigest() for name, body in files.items()})


def _ids_only(name: str, body: str) -> str:
    try:
        values = json.loads(body) if name == _TOKENIZER_CONFIG else None
    except ValueError:
        return body
    if not isinstance(values, dict):
        return body
    return digest_of(_stated({key: value for key, value in values.items() if key not in _NOT_IDS}))


def _stated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is null, false or empty: a setting that is not there says the same."""
    return {key: one for key, one in values.items() if one is not None and one is not False and one not in ("", [], {})}
