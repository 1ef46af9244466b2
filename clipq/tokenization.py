"""Tokenizers as data: settings in the header, and the files of a Hugging Face tokenizer packed beside the weights."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import CheckpointError, unknown_name

Tokenize = Callable[[str | list[str]], Tensor]
_MAX_BYTES = 256 << 20  # unpacked; the largest tokenizers of CLIP-like models (SigLIP 2) have 35 MB


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
        text = stream.decompress(data, _MAX_BYTES)
        if stream.unconsumed_tail or not stream.eof:
            raise ValueError(f"larger than {_MAX_BYTES} bytes, or cut off")
        files = json.loads(text)
        if not all(Path(name).name == name and isinstance(body, str) for name, body in files.items()):
            raise ValueError("a file name with a folder in it")
    except (zlib.error, ValueError, AttributeError) as error:
        raise CheckpointError(f"the tokenizer in the file cannot be unpacked: {error}.") from error
    return files


def build_tokenizer(spec: TokenizerSpec) -> Tokenize:
    """The function from a string or a list of n strings to int64 token ids [n, context_length]."""
    kind = spec.settings.get("kind")
    if kind not in _BUILDERS:
        raise unknown_name("tokenizer", kind, _BUILDERS)
    return _BUILDERS[kind](spec)


def describe_tokenizer(tokenizer: Any, context_length: int) -> TokenizerSpec:
    """The spec of an open_clip tokenizer or of a transformers one. Raises `CheckpointError` for another kind."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    if isinstance(tokenizer, SimpleTokenizer):
        return TokenizerSpec({"kind": "open_clip", "context_length": tokenizer.context_length})
    settings: dict[str, Any] = {"kind": "transformers", "context_length": context_length, "clean": None}
    if isinstance(tokenizer, HFTokenizer):
        settings["clean"] = tokenizer.clean_fn.__name__.removeprefix("_clean_")
        settings["context_length"] = tokenizer.context_length
        settings["strip_sep_token"] = tokenizer.strip_sep_token
        tokenizer = tokenizer.tokenizer
    if not hasattr(tokenizer, "save_pretrained"):
        raise CheckpointError(
            f"a tokenizer of type {type(tokenizer).__name__} cannot be stored; use open_clip's or transformers'."
        )
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_text("utf-8") for path in sorted(Path(folder).glob("*.json"))}
    return TokenizerSpec(settings, files)


def _open_clip(spec: TokenizerSpec) -> Tokenize:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=spec.settings["context_length"])


def _transformers(spec: TokenizerSpec) -> Tokenize:
    from open_clip.tokenizer import get_clean_fn
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, body in spec.files.items():
            Path(folder, name).write_text(body, "utf-8")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    clean_name = spec.settings.get("clean")
    clean = get_clean_fn(clean_name) if clean_name in _CLEANERS else str
    length, strip = spec.settings["context_length"], spec.settings.get("strip_sep_token", False)

    def tokenize(texts: str | list[str]) -> Tensor:
        texts = [clean(text) for text in ([texts] if isinstance(texts, str) else texts)]
        ids = tokenizer(texts, return_tensors="pt", max_length=length, padding="max_length", truncation=True).input_ids
        return ids.masked_fill(ids == tokenizer.sep_token_id, 0) if strip else ids

    return tokenize


_CLEANERS = ("canonicalize", "lower", "whitespace")  # open_clip's names; any other value cleans nothing
_BUILDERS: Mapping[str, Callable[[TokenizerSpec], Tokenize]] = {"open_clip": _open_clip, "transformers": _transformers}
