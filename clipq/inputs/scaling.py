"""How much of a JPEG a model of a given size can see: decoders leave out the rest for a fraction of the time.

A JPEG is cosines over blocks of 8 x 8 pixels; a decoder that takes the lowest of them gives the picture at 1/2, 1/4 or
1/8 of its size, each pixel about the mean of those it stands for (libjpeg's `scale_denom`, Pillow's `Image.draft`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from ..errors import unknown_name

DECODES = ("exact", "scaled")
DECODE = "exact"
"""The default, by measurement: on 56 real photos of wallpaper sizes the mean cosine of fp32 embeddings to exact ones
is 0.9995 with twice a model's size kept (0.9998 with three times, 0.9999 with four), and scaled was to have 0.9998."""

Smallest = Callable[[tuple[int, int]], tuple[int, int]]
"""From the size (width, height) of a picture, the way up it is looked at, to the least that is to be decoded of it."""

_SPARE = 2  # times what the model's own resizing will make of it: that stays the filter which decides the pixels
_RESIZED = ("CLIP", "ChineseCLIP", "Siglip", "ViT", "DeiT", "Bit", "EVA")
"""transformers' processors that resize the whole picture once, to `size`; of others nothing is assumed."""


def check_decode(decode: str) -> str:
    """`decode`, of `DECODES`. Raises `UnknownNameError`."""
    if decode not in DECODES:
        raise unknown_name("decode", decode, DECODES)
    return decode


def smallest_of(settings: Mapping[str, Any], decode: str) -> Smallest | None:
    """The least that pictures may be decoded to for preprocessing with these settings; None: whole.

    "scaled" keeps at least twice the width and the height that the preprocessing resizes a picture to, before it crops.
    """
    sides = _SIDES.get(settings.get("kind", ""), _unknown)(settings) if check_decode(decode) == "scaled" else None
    if sides is None:
        return None
    height, width, fit = sides
    return lambda size: _least(size, (width, height), fit)


def _least(size: tuple[int, int], target: tuple[int, int], fit: str) -> tuple[int, int]:
    """`_SPARE` times what `size` becomes, rounded up; all of them (width, height)."""
    ratios = [Fraction(max(one, 1), goal) for one, goal in zip(size, target, strict=True)]
    across, down = ratios if fit == "squash" else [(max if fit == "longest" else min)(ratios)] * 2
    return max(1, math.ceil(_SPARE * size[0] / across)), max(1, math.ceil(_SPARE * size[1] / down))


_Sides = tuple[int, int, str]
"""Height and width that a picture is resized to, and whether the shorter side gets its length, the longer, or both."""


def _unknown(settings: Mapping[str, Any]) -> None:
    return None


def _open_clip(settings: Mapping[str, Any]) -> _Sides | None:
    height, width = _two(settings.get("size", 224))
    return height, width, settings.get("resize_mode") or "shortest"


def _timm(settings: Mapping[str, Any]) -> _Sides | None:
    if settings.get("naflex") or settings.get("crop_border_pixels"):
        return None
    size = settings.get("input_size", 224)
    share = settings.get("crop_pct") or 0.875  # timm.data.constants.DEFAULT_CROP_PCT
    height, width = (math.floor(side / share) for side in _two(size[-2:] if isinstance(size, list | tuple) else size))
    return height, width, {"squash": "squash", "border": "longest"}.get(settings.get("crop_mode"), "shortest")


def _transformers(settings: Mapping[str, Any]) -> _Sides | None:
    name = str(settings.get("image_processor_type")).removesuffix("Fast").removesuffix("Pil")
    size = settings.get("size")
    if name.removesuffix("ImageProcessor") not in _RESIZED or not settings.get("do_resize", True) or not size:
        return None
    if not isinstance(size, Mapping):
        return *_two(size), "shortest"
    edges = {key: value for key, value in size.items() if value is not None}
    if {"height", "width"} <= set(edges):
        return edges["height"], edges["width"], "squash"
    return (*_two(edges["shortest_edge"]), "shortest") if "shortest_edge" in edges else None


_SIDES: Mapping[str, Callable[[Mapping[str, Any]], _Sides | None]] = {
    "open_clip": _open_clip,
    "timm": _timm,
    "transformers": _transformers,
}


def _two(size: Any) -> tuple[int, int]:
    sides = list(size) if isinstance(size, list | tuple) else [size]
    return sides[0], sides[-1]
