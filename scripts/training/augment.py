"""Batched augmentation of RGBA drawings with tensor operations: place, tint, blur, lay on a background."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def augment(
    pixels: torch.Tensor, flips: torch.Tensor, size: int, generator: torch.Generator, strength: float = 1.0
) -> torch.Tensor:
    """Turn uint8 RGBA drawings [n, h, w, 4] into varied RGB images [n, 3, size, size] in -1..1.

    flips says which drawings may be mirrored without changing what they show; strength scales how far a drawing is
    moved and tinted, and how often it gets a background, a blur or a hole (1: far and often).
    """
    rgba = pixels.permute(0, 3, 1, 2).float() / 255
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)  # premultiplied: no dark seams when resampled
    rgba = place(rgba, flips, size, generator, strength)
    colour, alpha = rgba[:, :3], rgba[:, 3:]
    image = colour + (1 - alpha) * backgrounds(len(rgba), size, generator, strength)
    image = soften(tint(image, generator, strength), generator, strength)
    return erase(image, generator, strength).clamp(0, 1) * 2 - 1


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _some(n: int, share: float, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(n, generator=generator) < share).view(n, 1, 1, 1)


def place(
    rgba: torch.Tensor, flips: torch.Tensor, size: int, generator: torch.Generator, strength: float
) -> torch.Tensor:
    """Turn, shear, stretch, shift and (where allowed) mirror each drawing."""
    n = len(rgba)
    angle = torch.randn(n, generator=generator) * math.radians(5) * strength
    shear = _uniform(n, -0.08, 0.08, generator) * strength
    zoom = 1 + strength * _uniform(n, -0.1, 0.15, generator)  # above 1: smaller drawing
    stretch = 1 + strength * _uniform(n, -0.08, 0.09, generator)
    mirror = 1 - 2 * (flips & (torch.rand(n, generator=generator) < 0.5)).float()
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = zoom * mirror * angle.cos()
    theta[:, 0, 1] = zoom * (shear - angle.sin())
    theta[:, 1, 0] = zoom * mirror * angle.sin()
    theta[:, 1, 1] = zoom * stretch * angle.cos()
    theta[:, :, 2] = (torch.rand(n, 2, generator=generator) - 0.5) * 0.14 * strength
    grid = F.affine_grid(theta, [n, 4, size, size], align_corners=False)
    return F.grid_sample(rgba, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def backgrounds(n: int, size: int, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Draw white (mostly), plain or two-colour backgrounds."""
    ends = torch.rand(n, 3, 2, generator=generator)
    ends = torch.where(_some(n, 0.5, generator).view(n, 1, 1), 0.7 + 0.3 * ends, ends)
    ramp = torch.linspace(0, 1, size).view(1, 1, size, 1) * _uniform(n, 0, 1, generator).view(n, 1, 1, 1)
    blend = ends[:, :, :1, None] * (1 - ramp) + ends[:, :, 1:, None] * ramp
    return torch.where(_some(n, 1 - 0.3 * strength, generator), torch.ones(()), blend).expand(n, 3, size, size)


def tint(image: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Change hue, saturation, contrast and brightness a little; take the colour out of some."""
    n = len(image)
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    hue = torch.randn(n, generator=generator) * math.radians(10) * strength
    grey = _some(n, 0.04 * strength, generator).view(n)
    saturation = (1 + strength * _uniform(n, -0.3, 0.3, generator)) * (~grey).float()
    contrast = 1 + strength * _uniform(n, -0.2, 0.2, generator)
    turn = torch.zeros(n, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * hue.cos()
    turn[:, 1, 2] = -saturation * hue.sin()
    turn[:, 2, 1] = saturation * hue.sin()
    matrix = contrast.view(n, 1, 1) * (torch.linalg.inv(to_yiq) @ turn @ to_yiq)
    offset = 0.5 - 0.5 * contrast + strength * _uniform(n, -0.1, 0.1, generator)
    return torch.einsum("nij,njhw->nihw", matrix, image) + offset.view(n, 1, 1, 1)


def soften(image: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Blur some images, sharpen some, and flatten some to a few colour steps: crude changes of style."""
    n = len(image)
    blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = _uniform(n, -1.0, 1.0, generator).view(n, 1, 1, 1) * _some(n, 0.4 * strength, generator)
    image = image + amount * (blurred - image)
    return torch.where(_some(n, 0.05 * strength, generator), (image * 5).round() / 5, image)


def erase(image: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Cover a small rectangle of some images with one colour."""
    n, _, height, width = image.shape
    centre = torch.rand(n, 2, generator=generator)
    half = 0.06 + 0.09 * torch.rand(n, 2, generator=generator)
    y, x = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    rows = (y - centre[:, :1]).abs() < half[:, :1]
    columns = (x - centre[:, 1:]).abs() < half[:, 1:]
    inside = (rows[:, :, None] & columns[:, None, :])[:, None] & _some(n, 0.1 * strength, generator)
    return torch.where(inside, torch.rand(n, 3, 1, 1, generator=generator), image)
