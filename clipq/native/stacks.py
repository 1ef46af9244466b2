"""The blocks of a tower and the steps that follow them: what image and text towers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import steps
from .blocks import addresses, pack_block, run_blocks
from .pooling import AttentionPool
from .tensors import Tensors

Step = Callable[[np.ndarray, int, int], np.ndarray]
"""(rows, batch, threads) to rows: what comes after the blocks."""
Blocks = Callable[[int, np.ndarray, np.ndarray, bool, "np.ndarray | None"], np.ndarray]
"""(threads, rows, offsets, causal, keep) to rows: `run_blocks` over blocks that are packed already."""


class Stack:
    """The blocks and the steps after them. `blocks`: what runs them; None packs those of the description."""

    def __init__(self, tensors: Tensors, table: Mapping[str, Any], width: int, blocks: Blocks | None):
        self._blocks = _packed(tensors, table, width) if blocks is None else blocks
        self._steps: list[Step] = []
        for one in tensors.part(table, "steps"):
            step, width = _step(tensors, one, width)
            self._steps.append(step)
        self.outputs = width

    def run(
        self, rows: np.ndarray, offsets: np.ndarray, causal: bool, keep: np.ndarray | None, threads: int
    ) -> np.ndarray:
        rows = self._blocks(threads, rows, offsets, causal, keep)
        for step in self._steps:
            rows = step(rows, len(offsets) - 1, threads)
        return rows


def _packed(tensors: Tensors, table: Mapping[str, Any], width: int) -> Blocks:
    described = tensors.part(table, "blocks")
    if not isinstance(described, list) or not described:
        raise tensors.wrong("the tower's description has no blocks")
    blocks = []
    for one in described:
        blocks.append(pack_block(tensors.block(one, width)))
        tensors.release()
    held = addresses(blocks)

    def run(
        threads: int, rows: np.ndarray, offsets: np.ndarray, causal: bool, keep: np.ndarray | None, held_by=blocks
    ) -> np.ndarray:
        return run_blocks(threads, held, rows, offsets, causal, keep)

    return run


def _step(tensors: Tensors, table: Any, width: int) -> tuple[Step, int]:
    """A step over rows of `width`, and the width of what it gives."""
    kind = next(iter(table), None) if isinstance(table, Mapping) and len(table) == 1 else None
    if kind == "norm":
        norm = tensors.norm(table["norm"], width)
        return lambda rows, batch, threads: steps.layer_norm(rows, norm, threads), width
    if kind == "mean":
        first = tensors.number(table, "mean")
        return lambda rows, batch, threads: rows.reshape(batch, -1, width)[:, first:].mean(axis=1), width
    if kind == "linear":
        linear = _float_linear(tensors, table["linear"], width)
        return lambda rows, batch, threads: linear(rows, threads), linear.outputs
    if kind == "attention":
        return AttentionPool(tensors, table["attention"], width), width
    raise tensors.wrong(f"a step after the blocks is {table!r:.60}; known are norm, mean, linear and attention")


def _float_linear(tensors: Tensors, table: Any, inputs: int) -> steps.FloatLinear:
    transposed = bool(tensors.part(table, "transposed", optional=True))
    name = tensors.part(table, "weight")
    weight = tensors.vector(name, inputs, -1).T if transposed else tensors.vector(name, -1, inputs)
    return steps.FloatLinear(weight, tensors.maybe(table, "bias", len(weight)))
