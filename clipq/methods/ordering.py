"""Rounding one linear after the other, each for what the ones before it give it now that they are rounded.

All inputs go through the tower once, as one batch. Every linear, when it is called, is rounded by GPTQ for the rows
that come to it, and passes on what its rounded weights make of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arithmetic import functional
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
    others = [one for one in work.floats.values() if calls[one] != 1]
    round_all(work, others)
    for one in others:
        one.weight = rounded_weight(one)
    inputs = torch.cat(list(work.inputs))
    count = max(_FEWEST, _MOST_VALUES // max(largest, 1))
    _run(work, inputs[spread(len(inputs), count)], once)


def rounded_weight(one: Floats) -> Tensor:
    """float32 [out, in]: what the integers of `one` stand for."""
    q, scale, zero_point = one.rounded
    return functional.dequantize(q, scale, zero_point, one.layer.spec)


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


def _run(work: Work, inputs: Tensor, chosen: Sequence[Floats]) -> None:
    def see(one: Floats, rows: Tensor) -> None:
        found = gptq(one.weight.cpu(), (rows.T @ rows).cpu(), one.layer.spec)
        one.rounded = tuple(tensor.to(one.weight.device) for tensor in found)
        one.weight = rounded_weight(one)

    work.observe(chosen, see, [inputs])
