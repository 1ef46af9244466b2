"""torchvision's preprocessing of PIL pictures in one native call, to the bit: resize, centre crop, scale, normalize.

Resizing is most of what a picture costs before the tower once it is decoded; Pillow does it without vectors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..native import library

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    Preprocess = Callable[[Image], Tensor]

_BITS = 22  # of a weight's fraction: Pillow's PRECISION_BITS
_TALLEST = 1.95  # times as high as wide; from 2 on, Pillow 13 resizes down before it resizes across


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -0.5, in the order of operations of Pillow's bicubic_filter."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1.0, 1.0 - np.abs(x), 0.0)


_FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
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
    kernel, reach = _FILTERS[filter]
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
class NativePreprocess:
    """A transform of torchvision as one native call, for pictures in RGB; others go through the transform itself.

    host: the transform. size: of the shorter side. crop: (height, width).
    table: float32 [3, 256], what the transform makes of each value of each channel.
    """

    host: Preprocess
    size: int
    filter: str
    crop: tuple[int, int]
    table: np.ndarray

    def __call__(self, image: Image) -> Tensor:
        return self.on(image, library.best_path())

    def on(self, image: Image, path: str) -> Tensor:
        """The call on one of the library's instruction sets."""
        if image.mode != "RGB" or not (plan := _plan(image.size, self.size, self.filter, self.crop)):
            return self.host(image)
        import torch

        across, down = plan
        pixels = np.ascontiguousarray(np.asarray(image))
        out = torch.empty(3, len(down.first), len(across.first))
        x, y = across.structure(), down.structure()
        pointers = (ctypes.addressof(x), ctypes.addressof(y), self.table.ctypes.data, out.data_ptr())
        call = library.load().clipq_preprocess
        library.check(call(library.PATHS.index(path), pixels.ctypes.data, *pixels.shape[:2], *pointers))
        return out

    def __repr__(self) -> str:
        return f"{self.host!r}, as one native call"


@lru_cache(maxsize=256)
def _plan(picture: tuple[int, int], size: int, filter: str, crop: tuple[int, int]) -> tuple[Taps, Taps] | None:
    """The two passes for a picture (width, height), as torchvision's Resize and CenterCrop; None for the host's own."""
    width, height = picture
    if height > _TALLEST * width:
        return None
    short, long = min(width, height), int(size * max(width, height) / min(width, height))
    wide, high = (size, long) if short == width else (long, size)
    if crop[0] > high or crop[1] > wide:
        return None
    top, left = round((high - crop[0]) / 2.0), round((wide - crop[1]) / 2.0)
    across, down = taps(width, wide, filter), taps(height, high, filter)
    return across.part(left, crop[1]), down.part(top, crop[0])


def natively(host: Preprocess) -> Preprocess:
    """`host`, or what gives the same bits faster, where the library is there and the transform is one it knows."""
    steps = getattr(host, "transforms", None)
    if not library.available() or not isinstance(steps, Sequence):
        return host
    found = _recognized(host, list(steps))
    return found if found is not None and _agrees(found) else host


def _recognized(host: Preprocess, steps: list[Any]) -> NativePreprocess | None:
    kinds = [_NAMES.get(type(step).__name__) for step in steps]
    if [kind for kind in kinds if kind != "mode"] != ["resize", "crop", "tensor", "normalize"]:
        return None
    resize, crop = steps[kinds.index("resize")], steps[kinds.index("crop")]
    filter, size = getattr(resize.interpolation, "value", None), resize.size
    size = size[0] if isinstance(size, Sequence) and len(size) == 1 else size
    if not isinstance(size, int) or filter not in _FILTERS or resize.max_size is not None:
        return None
    return NativePreprocess(host, size, filter, tuple(crop.size), _table(steps[kinds.index("tensor") :]))


_NAMES = {
    "Resize": "resize",
    "CenterCrop": "crop",
    "MaybeConvertMode": "mode",
    "ToTensor": "tensor",
    "MaybeToTensor": "tensor",
    "Normalize": "normalize",
}
"""What each step of open_clip's and timm's transforms is; "mode" makes RGB of what is none."""


def _table(tail: Sequence[Callable[[Any], Any]]) -> np.ndarray:
    from PIL import Image

    ramp: Any = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2))
    for step in tail:
        ramp = step(ramp)
    return np.ascontiguousarray(ramp.numpy().reshape(3, 256), dtype=np.float32)


def _agrees(found: NativePreprocess) -> bool:
    """Whether it gives the host's bits on pictures of several shapes: another Pillow might compute otherwise."""
    from PIL import Image

    random, host = np.random.default_rng(0), found.host
    for shape in ((301, 407), (640, 333), (90, 61), (700, 401)):
        coarse = Image.fromarray(random.integers(0, 256, (*shape, 3), dtype=np.uint8))
        if not host(coarse).equal(found(coarse)):
            return False
    return True
