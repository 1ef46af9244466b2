"""Pictures to pixels in one native call: the shorter side resized, the middle cut out, each value looked up in a table.

To the bit what Pillow and torchvision make. Resizing is most of what a picture costs before the tower once it is
decoded; Pillow does it without vectors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from . import library
from .arrays import address, empty

if TYPE_CHECKING:
    from PIL.Image import Image

_BITS = 22  # of a weight's fraction: Pillow's PRECISION_BITS
_WIDEST = 100  # times as wide as high: beyond, the weights of what is cropped away cost more than the picture
_TALLEST = 1.95  # times as high as wide; from 2 on, Pillow 13 resizes down before it resizes across


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -0.5, in the order of operations of Pillow's bicubic_filter."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1.0, 1.0 - np.abs(x), 0.0)


FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "bicubic": (_cubic, 2.0),
    "bilinear": (_triangle, 1.0),
}
"""Each filter, and how far it reaches at the size of the picture."""


class _Taps(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "most")),
        *((name, ctypes.c_void_p) for name in ("first", "number", "weight")),
    ]


@dataclass(frozen=True)
class Taps:
    """What each output of one pass is made of: `number` neighbours from `first` on, with integer weights [count, most].

    The numbers are those of Pillow's precompute_coeffs and normalize_coeffs_8bpc (src/libImaging/Resample.c).
    """

    first: np.ndarray
    number: np.ndarray
    weight: np.ndarray

    def part(self, start: int, count: int) -> Taps:
        """Of `count` outputs from `start` on: what is cropped away need not be computed."""
        return Taps(
            *(np.ascontiguousarray(one[start : start + count]) for one in (self.first, self.number, self.weight))
        )

    def structure(self) -> _Taps:
        """As the library takes it; of use while this object lives."""
        arrays = (one.ctypes.data for one in (self.first, self.number, self.weight))
        return _Taps(*self.weight.shape, *arrays)


@lru_cache(maxsize=256)
def taps(size: int, wanted: int, filter: str) -> Taps:
    """Of resizing `size` pixels to `wanted`."""
    kernel, reach = FILTERS[filter]
    scale = size / wanted
    spread = max(scale, 1.0)
    support, centers = reach * spread, (np.arange(wanted) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    number = np.minimum((centers + support + 0.5).astype(np.int64), size) - first
    places = np.arange(number.max())
    weights = kernel((places + first[:, None] - centers[:, None] + 0.5) * (1.0 / spread))
    weights[places >= number[:, None]] = 0.0
    total = np.cumsum(weights, axis=1)[:, -1:]  # one after the other, as a loop adds
    weights = np.where(total != 0.0, weights / np.where(total != 0.0, total, 1.0), weights)
    whole = np.trunc(weights * (1 << _BITS) + np.where(weights < 0, -0.5, 0.5))
    return Taps(*(one.astype(np.int32) for one in (first, number, whole)))


@dataclass(frozen=True, eq=False)
class Cropped:
    """Pixels of pictures in RGB.

    size: of the shorter side once it is resized. filter: of `FILTERS`. crop: (height, width).
    table: float32 [3, 256], what becomes of each value of each channel.
    """

    size: int
    filter: str
    crop: tuple[int, int]
    table: np.ndarray

    def __call__(self, image: Image, path: str | None = None) -> np.ndarray | None:
        """float32 [3, *crop], on one of the library's instruction sets; None for a picture of another kind."""
        if image.mode != "RGB" or not (plan := _plan(image.size, self.size, self.filter, self.crop)):
            return None
        across, down = plan
        pixels, index = np.ascontiguousarray(np.asarray(image)), library.PATHS.index(library.resolved(path))
        out = empty(3, len(down.first), len(across.first))
        x, y = across.structure(), down.structure()
        pointers = (ctypes.addressof(x), ctypes.addressof(y), address(self.table), address(out))
        library.check(library.load().clipq_preprocess(index, address(pixels), *pixels.shape[:2], *pointers))
        return out

    def agrees_with(self, host: Callable[[Image], Any]) -> bool:
        """Whether it gives the bits of `host` on pictures of several shapes: another Pillow might compute otherwise."""
        from PIL import Image

        random = np.random.default_rng(0)
        for shape in ((301, 407), (430, 224), (90, 61)):
            coarse = Image.fromarray(random.integers(0, 256, (*shape, 3), dtype=np.uint8))
            found = self(coarse)
            if found is not None and not np.array_equal(np.asarray(host(coarse)), found):
                return False
        return True


def table_of(tail: Callable[[Image], Any]) -> np.ndarray:
    """float32 [3, 256] of what makes pixels [3, height, width] of a picture, each from its own value alone."""
    from PIL import Image

    ramp = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2))
    return np.ascontiguousarray(np.asarray(tail(ramp)).reshape(3, 256), dtype=np.float32)


@lru_cache(maxsize=256)
def _plan(picture: tuple[int, int], size: int, filter: str, crop: tuple[int, int]) -> tuple[Taps, Taps] | None:
    """The two passes for a picture (width, height), as torchvision's Resize and CenterCrop; None for the host's own."""
    width, height = picture
    if not width * height or height > _TALLEST * width or width > _WIDEST * height:
        return None
    short, long = min(width, height), int(size * max(width, height) / min(width, height))
    wide, high = (size, long) if short == width else (long, size)
    if crop[0] > high or crop[1] > wide:
        return None
    top, left = round((high - crop[0]) / 2.0), round((wide - crop[1]) / 2.0)
    across, down = taps(width, wide, filter), taps(height, high, filter)
    return across.part(left, crop[1]), down.part(top, crop[0])
