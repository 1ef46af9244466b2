"""What users give a model, before anything of it is a tensor: pictures, texts, labels and templates. Torch-free.

Each check costs microseconds and raises `DataError`: what was given, what is allowed, what to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import DataError
from .images import unlike_a_file
from .scaling import Smallest

LOGIT_SCALE = 100.0
"""Of zero-shot classification: CLIP clips its learned scale at 100, and evaluations use 100."""
_PLACE = re.compile(r"\{c?\}")


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


def pictures(images: Any) -> list[Any]:
    """One picture or a list of them as a list: PIL images, or what `open_picture` opens. Nothing is opened yet.

    Raises `DataError` for anything else and for a file that is not there.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    found = list(images) if isinstance(images, (list, tuple)) else [images]
    for place, one in enumerate(found):
        if reason := no_picture(one):
            where = f"image {place}" if isinstance(images, (list, tuple)) else "this image"
            raise DataError(f"{where} is {reason}; {_PICTURES}")
    return found


_PICTURES = (
    "give a PIL image, a path, the bytes of a file, a uint8 array [height, width, 3], a list of these, or a float "
    "tensor of preprocessed images [batch, channels, height, width]."
)


def no_picture(one: Any) -> str:
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


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
