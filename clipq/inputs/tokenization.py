"""From a tokenizer as data to the tokenizer, and back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from .tokenizer_files import TokenizerSpec, check_tokenizer

Tokenize = Callable[[str | list[str]], Tensor]


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
