"""Values for observers to see: ordinary ones, and those that break a careless histogram or search."""

from __future__ import annotations

import torch
from torch import Tensor


def gelu_like(generator: torch.Generator) -> Tensor:
    return torch.nn.functional.gelu(torch.randn(400, 24, generator=generator) * 2)


def outlier_channel(generator: torch.Generator) -> Tensor:
    x = torch.randn(400, 24, generator=generator)
    x[:, 5] = x[:, 5] * 30 + 60
    return x


def growing(generator: torch.Generator) -> Tensor:
    return torch.randn(400, 24, generator=generator) * torch.logspace(-30, 30, 400)[:, None]


CASES = {
    "normal": lambda g: torch.randn(400, 24, generator=g),
    "after GELU": gelu_like,
    "outlier channel": outlier_channel,
    "range grows by sixty powers of ten": growing,
    "range shrinks": lambda g: growing(g).flip(0),
    "constant": lambda g: torch.full((40, 8), 3.7),
    "negative constant": lambda g: torch.full((40, 8), -1e-20),
    "nearly constant": lambda g: 1 + torch.rand(100, 8, generator=g) * 2**-20,
    "all zero": lambda g: torch.zeros(40, 8),
    "zeros but one": lambda g: torch.zeros(40, 8).index_fill(0, torch.tensor([7]), 2.5),
    "one row": lambda g: torch.randn(1, 24, generator=g),
    "one value": lambda g: torch.tensor([[-0.3]]),
    "two clusters": lambda g: (
        torch.where(torch.rand(400, 24, generator=g) < 0.5, -1.0, 1.0) + torch.randn(400, 24, generator=g) / 100
    ),
    "smallest numbers": lambda g: torch.rand(40, 8, generator=g) * 1e-42,
    "largest numbers": lambda g: (torch.rand(40, 8, generator=g) - 0.5) * 3e38,
}


def data(case: str) -> Tensor:
    return CASES[case](torch.Generator().manual_seed(3))


def parts(x: Tensor) -> list[Tensor]:
    cuts = sorted({1, max(len(x) // 5, 1), max(len(x) // 2, 1)})
    return [part for part in x.tensor_split(cuts) if len(part)]


def ends(x: Tensor) -> tuple[float, float]:
    return float(x.min()), float(x.max())
