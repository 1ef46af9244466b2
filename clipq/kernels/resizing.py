"""torchvision's preprocessing of PIL pictures in one native call, to the bit: resize, centre crop, scale, normalize."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from ..native import library
from ..native.resizing import FILTERS, Cropped, table_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    Preprocess = Callable[[Image], Tensor]


@dataclass(frozen=True, eq=False)
class NativePreprocess:
    """A transform of torchvision as one native call; pictures of other kinds go through the transform."""

    host: Preprocess
    native: Cropped

    def __call__(self, image: Image) -> Tensor:
        return self.on(image)

    def on(self, image: Image, path: str | None = None) -> Tensor:
        """The call on one of the library's instruction sets."""
        found = self.native(image, path)
        if found is None:
            return self.host(image)
        import torch

        return torch.from_numpy(found)

    def __repr__(self) -> str:
        return f"{self.host!r}, as one native call"


def natively(host: Preprocess) -> Preprocess:
    """`host`, or what gives the same bits faster, where the library is there and the transform is one it knows."""
    steps = getattr(host, "transforms", None)
    if not library.available() or not isinstance(steps, Sequence):
        return host
    found = _recognized(host, list(steps))
    return found if found is not None and found.native.agrees_with(host) else host


def _recognized(host: Preprocess, steps: list[Any]) -> NativePreprocess | None:
    kinds = [_NAMES.get(type(step).__name__) for step in steps]
    if [kind for kind in kinds if kind != "mode"] != ["resize", "crop", "tensor", "normalize"]:
        return None
    resize, crop = steps[kinds.index("resize")], steps[kinds.index("crop")]
    filter, size = getattr(resize.interpolation, "value", None), resize.size
    size = size[0] if isinstance(size, Sequence) and len(size) == 1 else size
    if not isinstance(size, int) or filter not in FILTERS or resize.max_size is not None:
        return None
    tail = steps[kinds.index("tensor") :]
    table = table_of(lambda ramp: reduce(lambda values, step: step(values), tail, ramp))
    return NativePreprocess(host, Cropped(size, filter, tuple(crop.size), table))


_NAMES = {
    "Resize": "resize",
    "CenterCrop": "crop",
    "MaybeConvertMode": "mode",
    "ToTensor": "tensor",
    "MaybeToTensor": "tensor",
    "Normalize": "normalize",
}
"""What each step of open_clip's and timm's transforms is; "mode" makes RGB of what is none."""
