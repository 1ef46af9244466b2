"""The blocks of a tower and the steps that follow them: what image and text towers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import steps
from .blocks import Rotary, addresses, pack_block, run_blocks
from .pooling import described_pool
from .tensors import Tensors

Step = Callable[[np.ndarray, int, int], np.ndarray]
"""(rows, batch, threads) to rows: what comes after the blocks."""


class Stack:
    """Packed blocks and the steps after them. `tokens`: how many rows of a sequence come out of the blocks."""

    def __init__(
        self, tensors: Tensors, table: Mapping[str, Any], width: int, tokens: int, rotary: Rotary | None = None
    ):
        self._rotary = rotary
        self._blocks = _packed(tensors, table, width, 0 if rotary is None else rotary.cos.shape[1])
        self._addresses = addresses(self._blocks)
        self._steps: list[Step] = []
        for one in tensors.part(table, "steps"):
            step, width, tokens = _step(tensors, one, width, tokens)
            self._steps.append(step)
        if tokens != 1:
            raise tensors.wrong(f"its steps leave {tokens} rows of a picture, and an embedding is one")
        self.outputs = width

    def run(
        self, rows: np.ndarray, offsets: np.ndarray, causal: bool, keep: np.ndarray | None, threads: int
    ) -> np.ndarray:
        """Rows [rows, width] of sequences offsets[i]:offsets[i + 1] to [batch, outputs]; `keep`: as `run_blocks`."""
        rows = run_blocks(threads, self._addresses, rows, offsets, int(causal), keep, self._rotary)
        for step in self._steps:
            rows = step(rows, len(offsets) - 1, threads)
        return rows


def _packed(tensors: Tensors, table: Mapping[str, Any], width: int, turned: int) -> list[np.ndarray]:
    """`turned`: the width of the heads that the tower's rotary embeddings are for; 0 without any."""
    described = tensors.part(table, "blocks")
    if not isinstance(described, list) or not described:
        raise tensors.wrong("the tower's description has no blocks")
    blocks = []
    for one in described:
        block = tensors.block(one, width)
        if block.rotation != "none" and turned != width // block.heads:
            raise tensors.wrong(f"rotary embeddings are for heads of {turned}, and a block has {width // block.heads}")
        blocks.append(pack_block(block))
        tensors.release()
    return blocks


def _step(tensors: Tensors, table: Any, width: int, tokens: int) -> tuple[Step, int, int]:
    """A step over `tokens` rows of `width` a sequence; then the width, and the rows a sequence, of what it gives."""
    kind = next(iter(table), None) if isinstance(table, Mapping) and len(table) == 1 else None
    if kind == "norm":
        norm = tensors.norm(table["norm"], width)
        return lambda rows, batch, threads: steps.layer_norm(rows, norm, threads), width, tokens
    if kind == "mean":
        part = _part(tensors, table["mean"], tokens)
        return lambda rows, batch, threads: rows.reshape(batch, -1, width)[:, part].mean(axis=1), width, 1
    if kind == "linear":
        linear = _linear(tensors, table["linear"], width)
        return lambda rows, batch, threads: linear(rows, threads), linear.outputs, tokens
    if kind == "attention":
        return described_pool(tensors, table["attention"], width), width, 1
    raise tensors.wrong(f"a step after the blocks is {table!r:.60}; known are norm, mean, linear and attention")


def _part(tensors: Tensors, bounds: Any, tokens: int) -> slice:
    """Of a sequence's tokens: from a number on, or [first, behind the last]."""
    first, end = bounds if isinstance(bounds, list) and len(bounds) == 2 else (bounds, tokens)
    first = tensors.number({"mean": first}, "mean", 0, tokens - 1)
    return slice(first, tensors.number({"mean": end}, "mean", first + 1, tokens))


def _linear(tensors: Tensors, table: Any, inputs: int) -> steps.FloatLinear | steps.Linear:
    if tensors.part(table, "scale", optional=True) is not None:
        return steps.Linear(tensors.matrix(table, -1, inputs))
    transposed = bool(tensors.part(table, "transposed", optional=True))
    name = tensors.part(table, "weight")
    weight = tensors.vector(name, inputs, -1).T if transposed else tensors.vector(name, -1, inputs)
    return steps.FloatLinear(weight, tensors.maybe(table, "bias", len(weight)))
