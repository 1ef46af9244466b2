"""int8 models without torch: one file, numpy, Pillow and `tokenizers`, from pictures and texts to vectors.

    model = clipq.runtime.load("ViT-B-32-int8.safetensors")
    model.encode_image(["cat.jpg"]), model.encode_text(["a cat"]), model.classify("cat.jpg", ["cat", "dog"])

It computes what `clipq.Model` computes on a CPU, by the same native library. What it reads is any file of `clipq.save`
whose towers are int8 and described in the header (`clipq.native`); anything else is refused, naming what is missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .loading import load
    from .model import RuntimeModel

_HOME = {"load": "loading", "RuntimeModel": "model"}

__all__ = ["RuntimeModel", "load"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
