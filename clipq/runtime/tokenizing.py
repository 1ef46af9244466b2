"""From the tokenizer in a file to the function that makes token ids, without torch, open_clip or transformers.

The ids are those of `clipq.inputs.tokenization.build_tokenizer`; settings for which they would not be are refused.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inputs.tokenizer_files import check_tokenizer
from .cleaning import CLEANERS
from .clip_tokens import END_OF_TEXT, START_OF_TEXT, BytePairs
from .hugging_face_tokens import Encode, build_encode
from .refusals import refused

Tokens = Callable[[str | list[str]], NDArray[np.int64]]

_SIMPLE = "simple"


def build_tokens(settings: Mapping[str, Any], files: Mapping[str, str]) -> Tokens:
    """The function from a string or a list of n strings to int64 token ids [n, context_length].

    `settings` and `files` are a `TokenizerSpec`'s. Raises `UnknownNameError` for a kind that there is not,
    `CheckpointError` for settings and files that make no tokenizer, or one whose ids only its own library makes. The
    function raises `MissingPackageError` where open_clip's cleaning needs ftfy, for texts beyond ASCII.
    """
    check_tokenizer(settings)
    encode = _BUILDERS[settings["kind"]](settings, files)
    length = settings["context_length"]

    def tokens(texts: str | list[str]) -> NDArray[np.int64]:
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids = np.zeros((len(texts), length), np.int64)
        for row, text in zip(ids, texts, strict=True):
            found = encode(text)
            row[: len(found)] = found
        return ids

    return tokens


def _open_clip(settings: Mapping[str, Any], files: Mapping[str, str]) -> Encode:
    """open_clip's SimpleTokenizer: the words between two ids for start and end; the rest is 0."""
    length, reduction = settings["context_length"], settings.get("reduction_mask") or ""
    if reduction not in ("", _SIMPLE):
        raise refused("tokenizer of kind 'open_clip'", "reduction_mask", reduction, f"'', or {_SIMPLE!r}")
    clean, pairs = CLEANERS[settings.get("clean") or "lower"], BytePairs()
    cut = _some_of if reduction else _first_of
    return lambda text: cut(pairs.encode(clean(text)), length)


def _first_of(tokens: list[int], length: int) -> list[int]:
    """What fits, the end of the text always last."""
    found = [START_OF_TEXT, *tokens, END_OF_TEXT]
    return found if len(found) <= length else [*found[: length - 1], END_OF_TEXT]


def _some_of(tokens: list[int], length: int) -> list[int]:
    """Of a text that is too long, tokens in a row from a place drawn as open_clip draws it, with Python's `random`."""
    kept = length - 2
    if len(tokens) > kept:
        start = random.randint(0, len(tokens) - kept)
        tokens = tokens[start : start + kept]
    return [START_OF_TEXT, *tokens, END_OF_TEXT]


def _transformers(settings: Mapping[str, Any], files: Mapping[str, str]) -> Encode:
    """A tokenizer of transformers, in open_clip's wrapper where it cleans."""
    if settings.get("clean") is None:
        return build_encode(files, settings["context_length"])
    clean = CLEANERS[settings["clean"]]
    options = bool(settings.get("strip_sep_token")), settings.get("tokenizer_mode") == "clips"
    encode = build_encode(files, settings["context_length"], *options)
    return lambda text: encode(clean(text))


_BUILDERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, str]], Encode]] = {
    "open_clip": _open_clip,
    "transformers": _transformers,
}
