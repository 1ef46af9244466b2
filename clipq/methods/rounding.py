"""Rounding that knows the inputs: GPTQ for every linear of a tower."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..arithmetic.gptq import gptq
from .work import Floats, Work

_GRAMS_BYTES = 1 << 30  # of float32 gram matrices at a time; more linears than that take another pass over the data


def round_by_inputs(work: Work) -> None:
    """Choose the integers of every linear by `arithmetic.gptq`, for the inputs that the float tower gives it."""
    round_all(work, list(work.floats.values()))


def round_all(work: Work, chosen: Sequence[Floats]) -> None:
    """As `round_by_inputs`, for the linears that are `chosen`."""
    for part in _parts(chosen):
        grams = _grams(work, part)
        for one in part:
            found = gptq(one.weight.cpu(), grams.pop(one), one.layer.spec)
            one.rounded = tuple(tensor.to(one.weight.device) for tensor in found)


def _parts(floats: Iterable[Floats]) -> Iterator[list[Floats]]:
    part: list[Floats] = []
    size = 0
    for one in floats:
        own = 4 * one.weight.shape[1] ** 2
        if part and size + own > _GRAMS_BYTES:
            yield part
            part, size = [], 0
        part.append(one)
        size += own
    if part:
        yield part


def _grams(work: Work, part: list[Floats]) -> dict[Floats, Tensor]:
    grams = {one: torch.zeros(one.weight.shape[1], one.weight.shape[1]) for one in part}

    def see(one: Floats, rows: Tensor) -> None:
        grams[one] += (rows.T @ rows).cpu()

    work.observe(part, see)
    return grams
