"""A processor for the tiny transformers CLIP, and the folder of both that stands in for a model of the hub."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from tiny_models import build

_ENDS = {"<|startoftext|>": 98, "<|endoftext|>": 99}


def clip_processor() -> Any:
    """Pictures of 32 pixels; texts letter by letter, between the ids 98 and 99."""
    import transformers

    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocabulary = {letter: id for id, letter in enumerate(letters)} | _ENDS
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16)
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return transformers.CLIPProcessor(pictures, tokenizer)


def save_clip(folder: Path) -> Path:
    """The tiny CLIP with its processor, as `from_pretrained` of transformers reads it."""
    build("transformers CLIP").save_pretrained(folder)
    clip_processor().save_pretrained(folder)
    return folder
