"""Rounding one linear after the other, each for what the ones before it give it now that they are rounded.

All inputs go through the tower once, as one batch. Every linear, when it is called, is rounded by GPTQ for the rows
that come to it, and passes on what its rounded weights make of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arithmetic.gptq import gptq
from ..inputs.images import spread
from .rounding import round_all
from .work import Floats, Work

_MOST_VALUES = 1 << 28  # of the largest matrix of rows: fewer inputs are taken where all would make more
_FEWEST = 16  # inputs, whatever their size


def round_in_order(work: Work) -> None:
    """Choose the integers of every linear by `arithmetic.gptq`, for the inputs that the rounded tower gives it.

    What is called more than once for an input (an attention pool's projection: for its query, and for keys and values),
    or never, is rounded first, for the inputs that the float tower gives it.
    """
    calls, largest = _probe(work)
    once = [one for one in work.floats.values() if calls[one] == 1]
    count = max(_FEWEST, _MOST_VALUES // max(largest, 1))
    inputs = torch.cat(list(work.inputs))
    inputs = inputs[spread(len(inputs), count)]
    others = [one for one in work.floats.values() if calls[one] != 1]
    round_all(work, others)
    for one in others:
        one.weight = one.dequantized()
    _round(work, once, inputs)


def _probe(work: Work) -> tuple[Counter[Floats], int]:
    """How often each linear is called for an input, and the values of the largest matrix of rows that comes to one."""
    calls: Counter[Floats] = Counter()
    largest = 0

    def see(one: Floats, rows: Tensor) -> None:
        nonlocal largest
        calls[one] += 1
        largest = max(largest, rows.numel(), len(rows) * len(one.weight))

    work.observe(list(work.floats.values()), see, [work.inputs[0][:1]])
    return calls, largest


def _round(work: Work, chosen: Sequence[Floats], inputs: Tensor) -> None:
    def see(one: Floats, rows: Tensor) -> None:
        found = gptq(one.weight.cpu(), (rows.T @ rows).cpu(), one.layer.spec)
        one.rounded = tuple(tensor.to(one.weight.device) for tensor in found)
        one.weight = one.dequantized()

    work.observe(chosen, see, [inputs])
