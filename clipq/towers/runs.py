"""Towers of which only some blocks are int8: neighbours among those as one native call, the others module by module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..modules.layers import QLinear
from .fused import FusedStack
from .sequences import Sequences
from .transformer import Block, run_blocks


class Runs:
    """The blocks of a tower, each run by the native library where that computes it; the same bits in any company."""

    def __init__(self, blocks: Sequence[Block]):
        self._blocks = tuple(blocks)
        self._alone = [FusedStack((block,)) for block in blocks]
        self._stacks: dict[tuple[int, int], FusedStack] = {}

    def pack(self) -> list[QLinear]:
        """Pack what is not packed yet; the linears that need no packing of their own then."""
        return [linear for one in self._alone for linear in one.pack()]

    def __call__(self, x: Tensor, sequences: Sequences, causal: bool, keep: Tensor | None, blocks: slice) -> Tensor:
        """As `transformer.run_blocks`. `blocks`: those to run."""
        places = range(len(self._blocks))[blocks]
        for start, stop, native in _neighbours([(place, self._alone[place].fits(x)) for place in places]):
            own_keep = keep if stop == places.stop else None
            if native:
                x = self._stack(start, stop, x)(x, sequences, causal, own_keep)
            else:
                x = run_blocks(self._blocks[start:stop], x, sequences, causal, own_keep)
        return x

    def _stack(self, start: int, stop: int, x: Tensor) -> FusedStack:
        if stop == start + 1:
            return self._alone[start]
        stack = self._stacks.get((start, stop)) or FusedStack(self._blocks[start:stop])
        self._stacks[start, stop] = stack
        stack.fits(x)  # takes what is packed now
        return stack


def _neighbours(fits: Sequence[tuple[int, bool]]) -> Iterator[tuple[int, int, bool]]:
    """Runs of blocks as (first, behind the last, whether native). What is compiled holds stacks of one block only."""
    alone = torch.compiler.is_compiling()
    start = 0
    for end in range(1, len(fits) + 1):
        if end == len(fits) or fits[end][1] != fits[start][1] or (alone and fits[start][1]):
            yield fits[start][0], fits[end - 1][0] + 1, fits[start][1]
            start = end
