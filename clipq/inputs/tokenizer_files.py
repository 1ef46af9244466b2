"""What a file keeps of a tokenizer: settings in its header, and a Hugging Face tokenizer's files beside the weights."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import CheckpointError
from .settings import TOKENIZERS, check_settings

_MAX_BYTES = 128 << 20  # unpacked; the largest tokenizers of CLIP-like models (SigLIP 2) have 35 MB
_SMALL_BYTES = 8 << 20  # allowed however small they are packed
_MAX_RATIO = 24  # of unpacked to packed; tokenizers come to 4 to 10
_OF_MODELS = ("config.json", "open_clip_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class TokenizerSpec:
    """`settings["kind"]` is "open_clip" (its own BPE) or "transformers"; `files` are a Hugging Face tokenizer's."""

    settings: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)

    def pack(self) -> bytes:
        """The files, compressed, to be stored as one uint8 tensor."""
        return zlib.compress(json.dumps(self.files, sort_keys=True).encode(), 9)


def unpack_files(data: bytes) -> dict[str, str]:
    """The inverse of `TokenizerSpec.pack`; raises `CheckpointError` for anything else."""
    try:
        stream = zlib.decompressobj()
        allowed = min(max(_MAX_RATIO * len(data), _SMALL_BYTES), _MAX_BYTES)
        text = stream.decompress(data, allowed)
        if stream.unconsumed_tail or not stream.eof:
            raise ValueError(f"larger than {allowed} bytes, or cut off")
        files = json.loads(text)
        if bad := [name for name, body in files.items() if not (_is_plain(name) and isinstance(body, str))]:
            raise ValueError(f"{bad[0]!r} is not a file of a tokenizer")
    except (zlib.error, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"the tokenizer in the file cannot be unpacked: {error}.") from error
    return files


def _is_plain(name: str) -> bool:
    """Whether `name` is what a tokenizer calls its files: no folder in it, and not a model's own `config.json`."""
    return re.fullmatch(r"\w[\w.-]*\.json", name, re.ASCII) is not None and name not in _OF_MODELS


def check_tokenizer(settings: Mapping[str, Any], context_length: int | None = None) -> None:
    """Raise a `ClipqError` for settings that make no tokenizer.

    `context_length`: of the text tower, which longer texts do not fit into.
    """
    check_settings(settings, TOKENIZERS, "tokenizer")
    kind, length = settings["kind"], settings.get("context_length")
    if unknown := sorted(set(settings) - {"kind", *TOKENIZERS[kind]}):
        raise CheckpointError(f"a tokenizer of kind {kind!r} cannot be built: it takes no {unknown[0]!r}.")
    if length is None or (context_length is not None and length > context_length):
        raise CheckpointError(
            f"the tokenizer has context_length={length}; the text tower reads at most {context_length or 'so many'}."
        )
