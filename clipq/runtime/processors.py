"""The image processors of transformers that CLIP-like models have, without transformers.

From transformers 5 on, `CLIPImageProcessor` and its like resize uint8 tensors with torch, and `CLIPImageProcessorPil`
pictures with Pillow; here too. (In transformers 4 the plain name stood for Pillow's, and torch's ended in "Fast".) What
torch does is that of its CPU path; on a GPU, or x86 without AVX2, torchvision resizes in floats: some pixels differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..inputs.settings import OPENAI_MEAN, OPENAI_STD
from . import pictures, resampling
from .refusals import refused

if TYPE_CHECKING:
    from PIL.Image import Image

Window = tuple[int, int, int, int]
"""Top, left, height, width; where the crop is larger than the picture they reach over its borders."""

_OPENAI = {
    "image_mean": [*OPENAI_MEAN],
    "image_std": [*OPENAI_STD],
    "do_convert_rgb": True,
}
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_ALL = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
_CROPPED = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
_CLIP = {**_ALL, **_CROPPED, **_OPENAI, "size": {"shortest_edge": 224}, "resample": 3, "default_to_square": False}
_FIXED = {**_ALL, **_HALF, "size": {"height": 224, "width": 224}, "default_to_square": True}
_SIGLIP = {**_FIXED, "resample": 3, "default_to_square": False, "do_convert_rgb": True}
_DEIT = {**_FIXED, **_CROPPED, "resample": 3, "size": {"height": 256, "width": 256}}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "CLIPImageProcessor": _CLIP,
    "BitImageProcessor": _CLIP,
    "SiglipImageProcessor": _SIGLIP,
    "ViTImageProcessor": {**_FIXED, "resample": 2},
    "DeiTImageProcessor": _DEIT,
}
"""What each class does where its settings say nothing."""
_SIZES = ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"}, {"max_height", "max_width"})
_WITHOUT = ("use_square_size", "do_pad")  # other ways to change the picture; what is unknown to transformers it ignores


@dataclass(frozen=True)
class _Settings:
    """The settings of a processor, its class's own where it says nothing."""

    name: str
    values: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.values.get(key)

    def refused(self, key: str, allowed: str) -> Exception:
        return refused(f"preprocessing of {self.name}", key, self[key], allowed)


def build_processor(settings: Mapping[str, Any]) -> Callable[[Image], NDArray[np.float32]]:
    """The function from a picture to the `pixel_values` [3, height, width] of the processor that `settings` are of.

    Raises `CheckpointError` for a class, or a setting, whose pixels only transformers makes.
    """
    name = settings.get("image_processor_type")
    plain = name.removesuffix("Pil" if name.endswith("Pil") else "Fast") if isinstance(name, str) else ""
    if plain not in _DEFAULTS:
        allowed = ", ".join(sorted(_DEFAULTS)) + ', and these with "Pil" (or "Fast") behind'
        raise refused("preprocessing of kind 'transformers'", "image_processor_type", name, allowed)
    given = {key: value for key, value in settings.items() if value is not None}
    values = _Settings(name, {**_DEFAULTS[plain], **given})
    pil = name.endswith("Pil")
    _check(values, pil)
    size, crop = _size_rule(values), _crop_size(values)
    finish = _finish_as_pillow(values) if pil else _finish_as_torch(values)
    resized = _resized_by_pillow if pil else _resized_by_torch
    cut = _cut_as_pillow if pil else _cut_as_torch

    def pixels(image: Image) -> NDArray[np.float32]:
        image = image.convert("RGB")
        if values["do_convert_rgb"]:
            image = _on_white(image)
        have = pictures.size_of(image)
        target = have if size is None else pictures.checked(size(have))
        window = (0, 0, *target) if crop is None else cut(target, crop)
        return finish(resized(image, target, values["resample"], window))

    return pixels


def _check(values: _Settings, pil: bool) -> None:
    for key in _WITHOUT:
        if values[key]:
            raise values.refused(key, "false, or nothing")
    if not (values["do_rescale"] or values["do_normalize"]):
        raise values.refused("do_rescale", "true, or do_normalize, which makes floats as well")
    if values["do_rescale"] and not values["rescale_factor"]:
        raise values.refused("rescale_factor", "a number other than 0")
    numbers = {number: name for name, number in pictures.FILTERS.items() if pil or name in resampling.FILTERS}
    if values["do_resize"] and values["resample"] not in numbers:
        raise values.refused("resample", ", ".join(f"{number} ({name})" for number, name in numbers.items()))


def _size_rule(values: _Settings) -> Callable[[pictures.Size], pictures.Size] | None:
    """From a picture's size to what it is resized to; None where it is not."""
    if not values["do_resize"]:
        return None
    size = _named_sides(values, "size", bool(values["default_to_square"]))
    if set(size) not in _SIZES:
        raise values.refused("size", " or ".join(" and ".join(sorted(names)) for names in _SIZES))
    if "height" in size:
        return lambda have: (size["height"], size["width"])
    if "max_height" in size:
        return lambda have: _within(have, size["max_height"], size["max_width"])
    if "longest_edge" in size:
        return lambda have: _between(have, size["shortest_edge"], size["longest_edge"])
    return lambda have: pictures.shortest_to(have, size["shortest_edge"])


def _crop_size(values: _Settings) -> pictures.Size | None:
    if not values["do_center_crop"]:
        return None
    size = {} if values["crop_size"] is None else _named_sides(values, "crop_size", True)
    if set(size) != {"height", "width"}:
        raise values.refused("crop_size", "height and width")
    return size["height"], size["width"]


def _named_sides(values: _Settings, key: str, square: bool) -> dict[str, int]:
    """A size as transformers reads it: one number is a square or the shortest edge, two are height and width."""
    size = values[key]
    if isinstance(size, Mapping):
        return {side: length for side, length in size.items() if length is not None}
    if isinstance(size, int):
        return {"height": size, "width": size} if square else {"shortest_edge": size}
    if len(size) != 2:
        raise values.refused(key, "one number, or height and width")
    return {"height": size[0], "width": size[1]}


def _within(have: pictures.Size, height: int, width: int) -> pictures.Size:
    scale = min(height / have[0], width / have[1])
    return int(have[0] * scale), int(have[1] * scale)


def _between(have: pictures.Size, shortest: int, longest: int) -> pictures.Size:
    """The shorter side to `shortest`, unless the longer one would become longer than `longest`."""
    (height, width), raw = have, None
    low, high = float(min(have)), float(max(have))
    if high / low * shortest > longest:
        raw = longest * low / high
        shortest = round(raw)
    if min(have) == shortest:
        return have
    scaled = shortest if raw is None else raw
    if width < height:
        return int(scaled * height / width), shortest
    return shortest, int(scaled * width / height)


def _on_white(image: Image) -> Image:
    """An RGB picture may still say which color is transparent: that one becomes white."""
    from PIL import Image as images

    if image.info.get("transparency") is None:
        return image
    clear = image.convert("RGBA")
    white = images.new("RGBA", clear.size, (255, 255, 255, 255))
    return images.alpha_composite(white, clear).convert("RGB")


def _cut_as_torch(size: pictures.Size, crop: pictures.Size) -> Window:
    """The middle; what is missing around a smaller picture is divided with its odd pixel behind."""
    places = [
        -((want - have) // 2) if want > have else int((have - want) / 2.0)
        for have, want in zip(size, crop, strict=True)
    ]
    return places[0], places[1], *crop


def _cut_as_pillow(size: pictures.Size, crop: pictures.Size) -> Window:
    """The middle; what is missing around a smaller picture is divided with its odd pixel in front."""
    places = [
        -ceil((want - have) / 2) if want > have else (have - want) // 2 for have, want in zip(size, crop, strict=True)
    ]
    return places[0], places[1], *crop


def _resized_by_torch(image: Image, size: pictures.Size, number: int, window: Window) -> NDArray[np.uint8]:
    """The window of the resized picture, black around it: uint8 [3, height, width]."""
    name = next((name for name in resampling.FILTERS if pictures.FILTERS[name] == number), resampling.FILTERS[0])
    inner, place = _inside(window, size)
    return _framed(resampling.resize(np.asarray(image), size, name, inner), place, window)


def _resized_by_pillow(image: Image, size: pictures.Size, number: int, window: Window) -> NDArray[np.uint8]:
    inner, place = _inside(window, size)
    top, left, height, width = inner
    pixels = np.asarray(pictures.resize(image, size, number))[top : top + height, left : left + width]
    return _framed(pixels.transpose(2, 0, 1), place, window)


def _inside(window: Window, size: pictures.Size) -> tuple[Window, pictures.Size]:
    """The part of a window that lies in the picture, and where in the window that part lies."""
    top, left = max(window[0], 0), max(window[1], 0)
    height = min(window[0] + window[2], size[0]) - top
    width = min(window[1] + window[3], size[1]) - left
    return (top, left, height, width), (top - window[0], left - window[1])


def _framed(pixels: NDArray[np.uint8], place: pictures.Size, window: Window) -> NDArray[np.uint8]:
    _, height, width = pixels.shape
    if (height, width) == window[2:]:
        return pixels
    framed = np.zeros((3, *window[2:]), np.uint8)
    framed[:, place[0] : place[0] + height, place[1] : place[1] + width] = pixels
    return framed


def _finish_as_torch(values: _Settings) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """torchvision's: scaling and normalizing at once, with mean and standard deviation scaled instead of the pixels."""
    factor = values["rescale_factor"]
    if not values["do_normalize"]:
        return lambda pixels: pixels.astype(np.float32, order="C") * np.float32(factor)
    mean, std = pictures.three(values["image_mean"]), pictures.three(values["image_std"])
    if values["do_rescale"]:
        mean, std = mean * np.float32(1.0 / factor), std * np.float32(1.0 / factor)
    return lambda pixels: pictures.normalize(pixels.astype(np.float32, order="C"), mean, std)


def _finish_as_pillow(values: _Settings) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """numpy's: scaled in float64, normalized in float32."""
    mean, std = pictures.three(values["image_mean"]), pictures.three(values["image_std"])

    def finish(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        scaled = pixels * float(values["rescale_factor"]) if values["do_rescale"] else pixels
        floats = scaled.astype(np.float32, order="C")
        return pictures.normalize(floats, mean, std) if values["do_normalize"] else floats

    return finish
