"""Tokenizers as data: settings in the header, and the files of a Hugging Face tokenizer packed beside the weights."""

from __future__ import annotations

import json
import re
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from .settings import TOKENIZERS, check_settings

Tokenize = Callable[[str | list[str]], Tensor]
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


def build_tokenizer(spec: TokenizerSpec) -> Tokenize:
    """The function from a string or a list of n strings to int64 token ids [n, context_length].

    Raises `UnknownNameError` or `CheckpointError` if there is no such tokenizer.
    """
    check_tokenizer(spec.settings)
    kind = spec.settings["kind"]
    try:
        return _BUILDERS[kind](spec)
    except Exception as error:  # the border to libraries that are given settings from who knows where
        raise CheckpointError(f"the tokenizer of kind {kind!r} cannot be built: {error}") from error


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


def describe_tokenizer(tokenizer: Any, context_length: int) -> TokenizerSpec:
    """The spec of an open_clip tokenizer or of a transformers one. Raises `CheckpointError` for another kind."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    settings: dict[str, Any] = {"context_length": getattr(tokenizer, "context_length", None) or context_length}
    if isinstance(tokenizer, (SimpleTokenizer, HFTokenizer)):
        settings["clean"] = tokenizer.clean_fn.__name__.removeprefix("_clean_")
    if isinstance(tokenizer, SimpleTokenizer):
        return TokenizerSpec({"kind": "open_clip", "reduction_mask": _reduction_of(tokenizer), **settings})
    settings = {"kind": "transformers", "clean": None, **settings}
    if isinstance(tokenizer, HFTokenizer):
        settings |= {"strip_sep_token": tokenizer.strip_sep_token, "tokenizer_mode": tokenizer.tokenizer_mode}
        tokenizer = tokenizer.tokenizer
    if not hasattr(tokenizer, "save_pretrained"):
        raise CheckpointError(
            f"a tokenizer of type {type(tokenizer).__name__} cannot be stored; use open_clip's or transformers'."
        )
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_text("utf-8") for path in sorted(Path(folder).glob("*.json"))}
    return TokenizerSpec(settings, files)


def _reduction_of(tokenizer: Any) -> str:
    """open_clip's name for how texts that are too long are cut; "" for their beginning."""
    from open_clip.tokenizer import random_mask_tokenize, simple_mask_tokenize, syntax_mask_tokenize

    names = {simple_mask_tokenize: "simple", random_mask_tokenize: "random", syntax_mask_tokenize: "syntax", None: ""}
    return names.get(tokenizer.reduction_fn, "shuffle")


def _open_clip(spec: TokenizerSpec) -> Tokenize:
    from open_clip.tokenizer import SimpleTokenizer

    options = {key: spec.settings[key] for key in ("clean", "reduction_mask") if spec.settings.get(key)}
    return SimpleTokenizer(context_length=spec.settings["context_length"], **options)


def _transformers(spec: TokenizerSpec) -> Tokenize:
    from open_clip.tokenizer import HFTokenizer
    from transformers import AutoTokenizer

    safe = {"local_files_only": True, "trust_remote_code": False}
    options = {key: value for key, value in spec.settings.items() if key != "kind"}
    length, wrapped = options["context_length"], options.get("clean") is not None
    with tempfile.TemporaryDirectory() as folder:
        for name, body in spec.files.items():
            Path(folder, name).write_text(body, "utf-8")
        tokenizer = HFTokenizer(folder, **options, **safe) if wrapped else AutoTokenizer.from_pretrained(folder, **safe)

    def tokenize(texts: str | list[str]) -> Tensor:
        texts = [texts] if isinstance(texts, str) else texts
        return tokenizer(texts, return_tensors="pt", max_length=length, padding="max_length", truncation=True).input_ids

    built = tokenizer if wrapped else tokenize
    if built("a").shape != (1, length):  # a tokenizer that lacks a token for padding finds out when it is called
        raise ValueError(f"it does not make {length} ids of a text")
    return built


_BUILDERS: Mapping[str, Callable[[TokenizerSpec], Tokenize]] = {"open_clip": _open_clip, "transformers": _transformers}
