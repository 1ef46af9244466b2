"""What a transformers processor knows: how pictures become pixels, and how texts become token ids."""

from __future__ import annotations

from typing import Any

from ..errors import ClipqError
from .preprocessing import from_image_processor


def read_processor(processor: Any) -> tuple[dict[str, Any], Any]:
    """The preprocessing settings and the tokenizer (None without one) of a transformers processor.

    An image processor is one without a tokenizer. Raises `ClipqError` for what is no processor.
    """
    pictures = getattr(processor, "image_processor", processor)
    if not hasattr(pictures, "to_json_string") or not hasattr(pictures, "preprocess"):
        raise ClipqError(
            f"processor= takes what transformers' AutoProcessor or AutoImageProcessor loads, and "
            f"{type(processor).__name__} has no image processor. A tokenizer alone is given as tokenizer=."
        )
    return from_image_processor(pictures), getattr(processor, "tokenizer", None)
