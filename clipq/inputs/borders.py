"""What enters a model is checked once, at the border: pixels, pictures, token ids, texts, labels and templates.

Each check costs microseconds and raises `DataError`: what was given, what is allowed, what to do. Behind the border an
int8 product takes whatever has the right number of values, so nothing else may get there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .images import unlike_a_file
from .scaling import Smallest

_PLACE = re.compile(r"\{c?\}")
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


def strings(texts: Any) -> list[str]:
    """A string, or the strings of a list or another iterable, as a list. Raises `DataError` for anything else."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, (bytes, Mapping)) or not isinstance(texts, (Iterable, np.ndarray)):
        raise DataError(f"{_shown(texts)} is no text; give a string, a list of strings or a tensor of token ids.")
    if isinstance(texts, np.ndarray) and texts.ndim != 1:
        raise DataError(f"an array of shape {list(texts.shape)} is no list of texts; token ids are given as a tensor.")
    found = list(texts)
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise DataError(
                f"text {place} is {_shown(text)}; give strings. Token ids are given as a tensor [batch, tokens]: "
                "torch.tensor(ids)."
            )
    return found


def pictures(images: Any) -> list[Any] | Tensor:
    """One picture or a list of them as a list: PIL images, or what `open_picture` opens. Nothing is opened yet.

    A list of tensors [channels, height, width] is preprocessed images: one tensor. Raises `DataError` for anything else
    and for a file that is not there.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    found = list(images) if isinstance(images, (list, tuple)) else [images]
    if found and all(isinstance(one, Tensor) for one in found):
        return _stacked(found)
    for place, one in enumerate(found):
        if reason := _no_picture(one):
            where = f"image {place}" if isinstance(images, (list, tuple)) else "this image"
            raise DataError(f"{where} is {reason}; {_PICTURES}")
    return found


_PICTURES = (
    "give a PIL image, a path, the bytes of a file, a uint8 array [height, width, 3], a list of these, or a float "
    "tensor of preprocessed images [batch, channels, height, width]."
)


def _stacked(images: list[Tensor]) -> Tensor:
    shapes = {tuple(one.shape) for one in images}
    if len(shapes) > 1:
        raise DataError(
            f"tensors of several shapes, {sorted(shapes)[:3]}, are no batch; model.preprocess makes one size."
        )
    return torch.stack(images)


def _no_picture(one: Any) -> str:
    """What `one` is instead of a picture; "" for a picture."""
    from PIL.Image import Image

    if isinstance(one, np.ndarray):
        grey = one.ndim == 2 or (one.ndim == 3 and one.shape[2] in (1, 3, 4))
        right = grey and one.dtype == np.uint8 and one.size > 0
        return "" if right else f"an array of {one.dtype} {list(one.shape)}"
    if isinstance(one, (str, os.PathLike)):
        reason = unlike_a_file(one)
        return f"{os.fspath(one)!r}: {reason}" if reason else ""
    return "" if isinstance(one, (bytes, bytearray, Image)) else _shown(one)


def open_picture(picture: Any, smallest: Smallest | None = None) -> Any:
    """The RGB PIL image, the way up that EXIF says, of a PIL image, path, bytes or uint8 array [height, width(, 3)].

    smallest: the least that a JPEG file may be decoded to, see `scaling.smallest_of`.
    """
    from PIL import Image

    from .images import decode_upright

    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(np.ascontiguousarray(picture[..., 0] if picture.shape[2:] == (1,) else picture))
    return decode_upright(bytes(picture) if isinstance(picture, bytearray) else picture, smallest)


def prompts(labels: Any, templates: Any) -> tuple[list[str], list[str]]:
    """`labels` and `templates` as lists. Raises `DataError` for one string, none, or a template without a place."""
    names, forms = _several(labels, "labels"), _several(templates, "templates")
    for form in forms:
        if not _PLACE.search(form):
            raise DataError(f'the template {form!r} has no place for the label; write "{{}}" or "{{c}}" where it goes.')
    return names, forms


def _several(texts: Any, what: str) -> list[str]:
    if isinstance(texts, str):
        raise DataError(f"{what}={texts!r} is one string; give a list of them: [{texts!r}].")
    if not (found := strings(texts)):
        raise DataError(f"{what} is empty; give at least one.")
    return found


def fill(template: str, label: str) -> str:
    """`template` with `label` in each place, as it stands."""
    return _PLACE.sub(lambda _: label, template)


def batch_of(inputs: Mapping[str, Any]) -> int | None:
    """How many images a mapping of tensors (SigLIP 2 NaFlex: patches, mask, grid) holds; None if that is unclear."""
    sizes: Sequence[int | None] = [len(v) if isinstance(v, Tensor) and v.ndim else None for v in inputs.values()]
    return sizes[0] if sizes and len(set(sizes)) == 1 else None


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
