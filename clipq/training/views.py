"""Random views of a picture: what is in it stays, where it is in the frame does not.

A resized crop of 40 % to all of the area, as in Szegedy et al., arXiv:1409.4842, and a flip: enough for a student that
learns from a teacher's answer to the very same view.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_AREA = (0.4, 1.0)
_RATIO = (3 / 4, 4 / 3)


def view_of_picture(picture: Any, chance: torch.Generator) -> Any:
    """A random part of a PIL image, every other time mirrored."""
    from PIL.Image import Transpose

    left, top, width, height = _box(*picture.size, chance)
    part = picture.crop((left, top, left + width, top + height))
    return part.transpose(Transpose.FLIP_LEFT_RIGHT) if _flips(chance) else part


def view_of_pixels(pixels: Tensor, chance: torch.Generator) -> Tensor:
    """A random part of a preprocessed image [channels, height, width] at its size, every other time mirrored."""
    height, width = pixels.shape[1:]
    left, top, across, down = _box(width, height, chance)
    part = pixels[:, top : top + down, left : left + across]
    part = F.interpolate(part[None], (height, width), mode="bicubic", antialias=True, align_corners=False)[0]
    return part.flip(-1) if _flips(chance) else part


def _box(width: int, height: int, chance: torch.Generator) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random part, at least one pixel large."""
    area, ratio, across, down = torch.rand(4, generator=chance, dtype=torch.float64).tolist()
    area = width * height * (_AREA[0] + area * (_AREA[1] - _AREA[0]))
    ratio = math.exp(math.log(_RATIO[0]) + ratio * math.log(_RATIO[1] / _RATIO[0]))
    wide = min(width, max(1, round(math.sqrt(area * ratio))))
    high = min(height, max(1, round(math.sqrt(area / ratio))))
    return int(across * (width - wide + 1)), int(down * (height - high + 1)), wide, high


def _flips(chance: torch.Generator) -> bool:
    return bool(torch.rand((), generator=chance) < 0.5)
