"""int8 models without torch: one file, numpy, Pillow and `tokenizers`, from pictures and texts to vectors.

    model = clipq.runtime.load("ViT-B-32-int8.safetensors")
    model.encode_image(["cat.jpg"]), model.encode_text(["a cat"]), model.classify("cat.jpg", ["cat", "dog"])

It computes what `clipq.Model` computes on a CPU, by the same native library. What it reads is any file of `clipq.save`
whose towers are int8 and described in the header (`clipq.native`); anything else is refused, naming what is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .loading import load
    from .model import RuntimeModel

_HOME = {"load": ".loading", "RuntimeModel": ".model"}

__all__ = ["RuntimeModel", "load"]

__getattr__, __dir__ = lazily(__name__, _HOME)
