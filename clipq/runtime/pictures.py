"""What torchvision's transforms do to Pillow pictures, without torchvision: resize, cut, fill, and pixels as floats.

The order of the operations and their types are the host's, so that the pixels are its own, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""Pillow's numbers of its filters."""
_MAX_PIXELS = 1 << 27  # of a picture on its way, 400 MB; a strip of one pixel by 65,000 would become ten gigabytes

Size = tuple[int, int]
"""Height and width."""


def size_of(image: Image) -> Size:
    return image.height, image.width


def shortest_to(size: Size, shortest: int) -> Size:
    """`size` scaled until its shorter side is `shortest`; the other is cut to a whole number, as torchvision does."""
    height, width = size
    other = int(shortest * max(size) / min(size))
    return checked((other, shortest) if width <= height else (shortest, other))


def ratio_kept(size: Size, target: Size, longest: bool) -> Size:
    """`size` scaled until it fits into `target` (longest), or covers it: timm's ResizeKeepRatio."""
    ratios = size[0] / target[0], size[1] / target[1]
    ratio = max(ratios) if longest else min(ratios)
    return checked((round(size[0] / ratio), round(size[1] / ratio)))


def checked(size: Size) -> Size:
    """Raises `DataError` for a size without pixels, or with too many on the way to a few hundred."""
    if not 0 < size[0] * size[1] <= _MAX_PIXELS:
        raise DataError(
            f"the picture is too long and narrow: it would be resized to {size[1]} x {size[0]} pixels; allowed are 1 "
            f"to {_MAX_PIXELS}. Cut it before."
        )
    return size


def resize(image: Image, size: Size, number: int) -> Image:
    """The picture in `size`, with Pillow's filter `number`; itself where it has that size."""
    from PIL.Image import Resampling

    return image if size_of(image) == size else image.resize(size[::-1], Resampling(number))


def center_crop(image: Image, size: Size, fill: int | Sequence[int] = 0) -> Image:
    """The middle of the picture; where it is smaller, with a border of `fill`."""
    short = [max(wanted - have, 0) for wanted, have in zip(size, size_of(image), strict=True)]
    if any(short):
        image = _expanded(image, (short[1] // 2, short[0] // 2, (short[1] + 1) // 2, (short[0] + 1) // 2), fill)
        if size_of(image) == size:
            return image
    top, left = (round((have - wanted) / 2.0) for have, wanted in zip(size_of(image), size, strict=True))
    return image.crop((left, top, left + size[1], top + size[0]))


def _expanded(image: Image, border: tuple[int, int, int, int], fill: int | Sequence[int]) -> Image:
    from PIL import ImageOps

    bands = len(image.getbands())
    color = [fill] * bands if isinstance(fill, int) else [*fill]
    if len(color) != bands:
        raise DataError(f"a border of {len(color)} colors does not fit a picture of mode {image.mode}; make it RGB.")
    palette = image.getpalette() if image.mode == "P" else None
    image = ImageOps.expand(image, border, color[0] if bands == 1 else tuple(color))
    if palette is not None:
        image.putpalette(palette)
    return image


def floats(image: Image) -> NDArray[np.float32]:
    """An RGB picture as [3, height, width] from 0 to 1: torchvision's ToTensor."""
    pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
    pixels /= np.float32(255)
    return pixels


def three(values: float | Sequence[float]) -> NDArray[np.float32]:
    """One number or three, as [3, 1, 1] or one that fits it."""
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def normalize(pixels: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """(pixels - mean) / std, in place."""
    pixels -= mean
    pixels /= std
    return pixels
