"""A processor for the tiny transformers CLIP, and the folder of both that stands in for a model of the hub."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tiny_models import build
from torch import nn

_CONTEXT = 77  # letters: what a prompt of the zero-shot pipelines has
_ENDS = {"<|startoftext|>": 98, "<|endoftext|>": 99}


def clip_processor(context: int = 16) -> Any:
    """Pictures of 32 pixels; texts letter by letter, between the ids 98 and 99, at most `context` of them."""
    import transformers

    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocabulary = {letter: id for id, letter in enumerate(letters)} | _ENDS
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=context)
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return transformers.CLIPProcessor(pictures, tokenizer)


def long_clip() -> nn.Module:
    """The tiny transformers CLIP, reading texts of 77 letters."""
    import transformers

    config = build("transformers CLIP").config
    config.text_config.max_position_embeddings = _CONTEXT
    torch.manual_seed(0)
    return transformers.CLIPModel(config).eval()


def save_clip(folder: Path) -> Path:
    """That CLIP with its processor, as `from_pretrained` of transformers reads it."""
    long_clip().save_pretrained(folder)
    clip_processor(_CONTEXT).save_pretrained(folder)
    return folder
