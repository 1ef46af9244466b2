"""From the preprocessing settings in a file to the function that makes pixels, with Pillow and numpy alone.

The pixels are those of the host's own pipeline (`clipq.inputs.preprocessing.build_preprocess`), bit by bit; settings
for which they would not be are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..inputs.settings import OPENAI_MEAN, OPENAI_STD, PREPROCESSING, check_settings
from ..native import library
from ..native.resizing import FILTERS, Cropped, table_of
from . import pictures
from .processors import build_processor
from .refusals import refused

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = Callable[["Image"], NDArray[np.float32]]
Step = Callable[["Image"], "Image"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CROP_PCT = 0.875
_TIMM = "preprocessing of kind 'timm'"


def build_pixels(settings: Mapping[str, Any]) -> Pixels:
    """The function from a PIL image to float32 pixels [3, height, width] that `settings` say.

    Raises `UnknownNameError` for a kind that there is not, `CheckpointError` for settings that are wrong or whose
    pixels only their own library makes. The function raises `DataError` for a picture too long and narrow to resize.
    """
    check_settings(settings, PREPROCESSING, "preprocessing")
    return _BUILDERS[settings["kind"]]({key: value for key, value in settings.items() if key != "kind"})


def _known(kind: str, settings: Mapping[str, Any], names: Collection[str]) -> None:
    if unknown := sorted(set(settings) - set(names)):
        raise refused(f"preprocessing of kind {kind!r}", unknown[0], settings[unknown[0]], ", ".join(sorted(names)))


def _sides(kind: str, key: str, value: Any) -> tuple[int, int]:
    """Height and width of one number, or of the last two of some."""
    if isinstance(value, int):
        return value, value
    if len(value) < 2:
        raise refused(f"preprocessing of kind {kind!r}", key, value, "one number, or height and width")
    return value[-2], value[-1]


def _open_clip(settings: dict[str, Any]) -> Pixels:
    """open_clip's image_transform_v2: resized and cut in the picture's own mode, and made RGB after that."""
    _known("open_clip", settings, PREPROCESSING["open_clip"])
    size = _sides("open_clip", "size", settings.get("size", 224))
    number = pictures.FILTERS["bilinear" if settings.get("interpolation") == "bilinear" else "bicubic"]
    mode = settings.get("resize_mode", "shortest")
    fill = settings.get("fill_color", 0)
    steps: Mapping[str, Step] = {
        "squash": lambda image: pictures.resize(image, size, number),
        "longest": lambda image: pictures.center_crop(_fitted(image, size, number, longest=True), size, fill),
        # not to a square, open_clip resizes with bicubic whatever `interpolation` says
        "shortest": lambda image: pictures.center_crop(
            _shortest(image, size, number, pictures.FILTERS["bicubic"]), size
        ),
    }
    mean, std = settings.get("mean") or OPENAI_MEAN, settings.get("std") or OPENAI_STD  # 0 counts as not given
    host = _normalized(lambda image: steps[mode](image).convert("RGB"), mean, std)
    return _natively(host, size, size, number, _normalized(_as_it_is, mean, std)) if mode == "shortest" else host


def _timm(settings: dict[str, Any]) -> Pixels:
    """timm's create_transform for evaluation, of an RGB picture."""
    _known("timm", settings, PREPROCESSING["timm"])
    name = settings.get("interpolation", "bilinear")
    if name not in pictures.FILTERS:
        raise refused(_TIMM, "interpolation", name, ", ".join(pictures.FILTERS))
    size = _sides("timm", "input_size", settings.get("input_size", 224))
    share = settings.get("crop_pct") or _CROP_PCT
    scaled = floor(size[0] / share), floor(size[1] / share)
    if not all(scaled):
        raise refused(_TIMM, "crop_pct", share, "a share that leaves a pixel of input_size")
    number, mean = pictures.FILTERS[name], settings.get("mean", _IMAGENET_MEAN)
    fill = [round(255 * value) for value in mean] if isinstance(mean, list | tuple) else None
    mode = settings.get("crop_mode") or "center"
    if mode == "border" and fill is None:
        raise refused(_TIMM, "mean", mean, "three numbers, the border's color for crop_mode='border'")
    steps: Mapping[str, Step] = {
        "squash": lambda image: pictures.center_crop(pictures.resize(image, scaled, number), size),
        "border": lambda image: pictures.center_crop(_fitted(image, scaled, number, longest=True), size, fill or 0),
        "center": lambda image: pictures.center_crop(_shortest(image, scaled, number, number), size),
    }
    std = settings.get("std", _IMAGENET_STD)
    host = _normalized(lambda image: steps[mode](image.convert("RGB")), mean, std)
    return _natively(host, scaled, size, number, _normalized(_as_it_is, mean, std)) if mode == "center" else host


def _fitted(image: Image, size: pictures.Size, number: int, longest: bool) -> Image:
    return pictures.resize(image, pictures.ratio_kept(pictures.size_of(image), size, longest), number)


def _shortest(image: Image, size: pictures.Size, square: int, other: int) -> Image:
    """Resized until it covers `size`, with the filter `square` where that is a square and `other` where it is not."""
    if size[0] != size[1]:
        return _fitted(image, size, other, longest=False)
    return pictures.resize(image, pictures.shortest_to(pictures.size_of(image), size[0]), square)


def _normalized(step: Step, mean: Any, std: Any) -> Pixels:
    means, stds = pictures.three(mean), pictures.three(std)
    return lambda image: pictures.normalize(pictures.floats(step(image)), means, stds)


def _as_it_is(image: Image) -> Image:
    return image


def _natively(host: Pixels, scaled: pictures.Size, crop: pictures.Size, number: int, tail: Pixels) -> Pixels:
    """`host`, or what gives the same bits faster where the native library resizes so."""
    name = next(name for name, known in pictures.FILTERS.items() if known == number)
    if scaled[0] != scaled[1] or name not in FILTERS or not library.available():
        return host
    native = Cropped(scaled[0], name, crop, table_of(tail))

    def pixels(image: Image) -> NDArray[np.float32]:
        found = native(image)
        return host(image) if found is None else found

    return pixels if native.agrees_with(host) else host


_BUILDERS: Mapping[str, Callable[[dict[str, Any]], Pixels]] = {
    "open_clip": _open_clip,
    "timm": _timm,
    "transformers": build_processor,
}
