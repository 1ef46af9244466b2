"""What enters a model is checked once, at the border: pixels and token ids here, pictures and texts in `given`.

Each check costs microseconds and raises `DataError`: what was given, what is allowed, what to do. Behind the border an
int8 product takes whatever has the right number of values, so nothing else may get there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from .given import pictures as listed

_IDS = (torch.int64, torch.int32)


def check_pixels(pixels: Tensor, shape: tuple[int, int, int] | None, any_size: bool = False) -> None:
    """Refuse what is not preprocessed images [batch, channels, height, width] of any floating-point type.

    `shape`: [channels, height, width] of the model, None where it cannot be told; `any_size`: whether it takes others.
    """
    channels, *size = shape or ("channels", "height", "width")
    wanted = f"[batch, {channels}, {', '.join(map(str, size))}]"
    if any_size and shape:
        wanted = f"[batch, {channels}, height, width] (it was made for {size[0]} x {size[1]})"
    given = list(pixels.shape)
    fits = len(given) == 4 and (shape is None or given[1] == channels) and (any_size or not shape or given[2:] == size)
    if not fits or 0 in given[1:]:
        advice = "pixels[None] makes a batch of one image. " if given == list(shape or ()) else ""
        raise DataError(
            f"pixels of shape {given} are not what this model takes: {wanted}. {advice}model.preprocess(picture) makes "
            "pixels of the right size, and encode_image takes pictures and paths too."
        )
    if not pixels.is_floating_point():
        raise DataError(
            f"pixels of {pixels.dtype} are not what this model takes: scaled and normalized floating-point numbers "
            "(float64, float32, float16 or bfloat16; they are cast to the model's own). model.preprocess(picture) "
            "makes them, and encode_image takes pictures (PIL, uint8 arrays [height, width, 3]) too."
        )


def check_ids(ids: Tensor, context: int | None, vocabulary: int | None) -> None:
    """Refuse what is not token ids [batch, tokens]: at most `context` tokens, from 0 to `vocabulary` - 1."""
    longest = f"at most {context} tokens" if context else "tokens"
    if ids.ndim != 2 or ids.shape[1] == 0 or (context is not None and ids.shape[1] > context):
        advice = "ids[None] makes a batch of one text. " if ids.ndim == 1 else ""
        raise DataError(
            f"token ids of shape {list(ids.shape)} are not what this model takes: [batch, {longest}]. {advice}"
            "model.tokenizer(texts) makes ids of the right length, and encode_text takes strings too."
        )
    if ids.dtype not in _IDS:
        raise DataError(f"token ids of {ids.dtype} are not what this model takes: int64 or int32; ids.long() casts.")
    if vocabulary is not None and ids.numel() and not torch.compiler.is_compiling():
        lowest, highest = (int(end) for end in ids.aminmax())
        if lowest < 0 or highest >= vocabulary:
            raise DataError(
                f"token ids from {lowest} to {highest} are not all of this model's vocabulary, 0 to {vocabulary - 1} "
                "(padding too). model.tokenizer(texts) makes ids that are; another model's tokenizer does not."
            )


def pictures(images: Any) -> list[Any] | Tensor:
    """As `given.pictures`; a list of tensors [channels, height, width] is preprocessed images: one tensor."""
    if isinstance(images, (list, tuple)) and images and all(isinstance(one, Tensor) for one in images):
        return _stacked(list(images))
    return listed(images)


def _stacked(images: list[Tensor]) -> Tensor:
    shapes = {tuple(one.shape) for one in images}
    if len(shapes) > 1:
        raise DataError(
            f"tensors of several shapes, {sorted(shapes)[:3]}, are no batch; model.preprocess makes one size."
        )
    return torch.stack(images)


def batch_of(inputs: Mapping[str, Any]) -> int | None:
    """How many images a mapping of tensors (SigLIP 2 NaFlex: patches, mask, grid) holds; None if that is unclear."""
    sizes: Sequence[int | None] = [len(v) if isinstance(v, Tensor) and v.ndim else None for v in inputs.values()]
    return sizes[0] if sizes and len(set(sizes)) == 1 else None
