"""Image towers in the native library: preprocessed pictures to embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import steps
from .arrays import empty
from .rotary import axial
from .stacks import Stack
from .tensors import Tensors

_IMAGES = 16  # pictures cut into patches at a time: memory is bounded by them
_ROWS = 8192  # tokens that go through a tower at a time, or _IMAGES pictures where they are more: so is theirs
_MOST_SIDE = 1 << 13


class ImageStem:
    """Preprocessed pictures to the rows that the first block takes."""

    def __init__(self, tensors: Tensors, table: Mapping[str, Any]):
        channels, height, width = _sizes(tensors, table, "pixels", 3)
        self.shape = channels, height, width
        self.patch = down, across = _sizes(tensors, table, "patch", 2)
        if down > height or across > width:
            raise tensors.wrong(f"a patch of {down} x {across} is larger than the picture, {height} x {width}")
        matrix = tensors.matrix(tensors.part(table, "patches"), -1, channels * down * across)
        self._patches, self.width = steps.Linear(matrix), len(matrix.weight)
        patches = (height // down) * (width // across)
        self._prefix, self._positions = self._tokens(tensors, table, patches)
        self.tokens = len(self._prefix) + patches
        norm = tensors.part(table, "norm", optional=True)
        self._norm = None if norm is None else tensors.norm(norm, self.width)

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

    def __call__(self, pixels: np.ndarray, threads: int) -> np.ndarray:
        """float32 [batch, channels, height, width] of `shape` to rows [batch * tokens, width]."""
        rows = [
            self._patches(steps.cut_patches(pixels[i : i + _IMAGES], self.patch, threads), threads)
            for i in range(0, len(pixels), _IMAGES)
        ]
        patches = rows[0] if len(rows) == 1 else np.concatenate(rows)
        return steps.join_tokens(patches, len(pixels), self._prefix, self._positions, self._norm, threads)


class ImageTower:
    """Preprocessed pictures to embeddings."""

    def __init__(self, tensors: Tensors, table: Mapping[str, Any]):
        self._stem = ImageStem(tensors, table)
        self.shape = self._stem.shape
        tokens, keep = self._stem.tokens, tensors.part(table, "keep", optional=True)
        self._keep = None if keep is None else tensors.number(table, "keep", 0, tokens - 1)
        rotary = tensors.part(table, "rotary", optional=True)
        tables = None if rotary is None else axial(tensors, rotary, tokens)
        self._stack = Stack(tensors, table, self._stem.width, tokens if keep is None else 1, tables)

    @property
    def outputs(self) -> int:
        return self._stack.outputs

    def __call__(self, pixels: np.ndarray, threads: int) -> np.ndarray:
        """float32 [batch, channels, height, width] of `shape` to [batch, outputs]."""
        most = max(_IMAGES, _ROWS // self._stem.tokens)
        if len(pixels) <= most:
            return self._some(pixels, threads)
        y = empty(len(pixels), self.outputs)
        for i in range(0, len(pixels), most):
            y[i : i + most] = self._some(pixels[i : i + most], threads)
        return y

    def _some(self, pixels: np.ndarray, threads: int) -> np.ndarray:
        rows = self._stem(np.ascontiguousarray(pixels, np.float32), threads)
        offsets = np.arange(0, len(rows) + 1, self._stem.tokens, dtype=np.int64)
        keep = None if self._keep is None else offsets[:-1] + self._keep
        return self._stack.run(rows, offsets, False, keep, threads)


def _sizes(tensors: Tensors, table: Mapping[str, Any], key: str, count: int) -> tuple[int, ...]:
    values = tensors.part(table, key)
    if not isinstance(values, list) or len(values) != count:
        raise tensors.wrong(f"{key} is {values!r:.40}, not {count} whole numbers")
    return tuple(tensors.number({key: value}, key, 1, _MOST_SIDE) for value in values)
