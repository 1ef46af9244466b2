"""Image towers in the native library: preprocessed pictures to embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import steps
from .stacks import Blocks, Stack
from .tensors import Tensors

_IMAGES = 16  # pictures cut into patches at a time: memory is bounded by them
_MOST_SIDE = 1 << 13


class ImageTower:
    """Preprocessed pictures to embeddings. `blocks`: what runs the blocks, where they are packed already."""

    def __init__(self, tensors: Tensors, table: Mapping[str, Any], blocks: Blocks | None = None):
        channels, height, width = _sizes(tensors, table, "pixels", 3)
        self.shape = channels, height, width
        self.patch = down, across = _sizes(tensors, table, "patch", 2)
        if down > height or across > width:
            raise tensors.wrong(f"a patch of {down} x {across} is larger than the picture, {height} x {width}")
        matrix = tensors.matrix(tensors.part(table, "patches"), -1, channels * down * across)
        self._patches, self.width = steps.Linear(matrix), len(matrix.weight)
        self._prefix, self._positions = self._tokens(tensors, table, (height // down) * (width // across))
        norm = tensors.part(table, "norm", optional=True)
        self._norm = None if norm is None else tensors.norm(norm, self.width)
        self._stack = Stack(tensors, table, self.width, blocks)
        keep = tensors.part(table, "keep", optional=True)
        self.tokens = len(self._prefix) + (height // down) * (width // across)
        self._keep = None if keep is None else tensors.number(table, "keep", 0, self.tokens - 1)

    def _tokens(self, tensors: Tensors, table: Mapping[str, Any], patches: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows that stand before a picture's, positions added, and the positions of the picture's rows."""
        names = tensors.part(table, "prefix")
        rows = [tensors.vector(name, -1, self.width) for name in names]
        prefix = np.concatenate(rows) if rows else np.zeros((0, self.width), np.float32)
        places = tensors.part(table, "positions", optional=True)
        if places is None:
            return prefix, None
        own = tensors.number(places, "prefix", 0, len(prefix))
        positions = tensors.vector(tensors.part(places, "tensor"), own + patches, self.width)
        prefix[:own] += positions[:own]
        return prefix, np.ascontiguousarray(positions[own:])

    @property
    def outputs(self) -> int:
        return self._stack.outputs

    def __call__(self, pixels: np.ndarray, threads: int) -> np.ndarray:
        """float32 [batch, channels, height, width] of `shape` to [batch, outputs]."""
        batch = len(pixels)
        if batch > _IMAGES:
            parts = [self(pixels[i : i + _IMAGES], threads) for i in range(0, batch, _IMAGES)]
            return np.concatenate(parts)
        rows = self._patches(steps.cut_patches(np.ascontiguousarray(pixels, np.float32), self.patch, threads), threads)
        rows = steps.join_tokens(rows, batch, self._prefix, self._positions, self._norm, threads)
        offsets = np.arange(0, len(rows) + 1, self.tokens, dtype=np.int64)
        keep = None if self._keep is None else offsets[:-1] + self._keep
        return self._stack.run(rows, offsets, False, keep, threads)


def _sizes(tensors: Tensors, table: Mapping[str, Any], key: str, count: int) -> tuple[int, ...]:
    values = tensors.part(table, key)
    if not isinstance(values, list) or len(values) != count:
        raise tensors.wrong(f"{key} is {values!r:.40}, not {count} whole numbers")
    return tuple(tensors.number({key: value}, key, 1, _MOST_SIDE) for value in values)
