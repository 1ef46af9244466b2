"""Rotary position embeddings of a described tower."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from .blocks import Rotary
from .tensors import Tensors

_MOST_SIDE, _MOST_HEAD = 1 << 10, 1 << 12


def axial(tensors: Tensors, table: Any, tokens: int) -> Rotary:
    """The tables of a tower of `tokens` rows, from `table`: {grid, prefix, axes, cos, sin}.

    Row y * width + x of a grid [height, width] of patches takes column c from row y of `cos` and `sin` where axes[c] is
    0, else from row x; these are float32 [longer side of the grid, head] in base 64.
    """
    grid = tensors.part(table, "grid")
    if not isinstance(grid, list) or len(grid) != 2:
        raise tensors.wrong(f"the grid of rotary embeddings is {grid!r:.40}, not two sides")
    height, width = (tensors.number({"grid": side}, "grid", 1, _MOST_SIDE) for side in grid)
    prefix = tensors.number(table, "prefix", 0, tokens)
    if prefix + height * width != tokens:
        raise tensors.wrong(f"rotary embeddings are for {prefix} + {height} x {width} tokens, not for {tokens}")
    axes = tensors.part(table, "axes")
    if not isinstance(axes, list) or not 1 <= len(axes) <= _MOST_HEAD or any(axis not in (0, 1) for axis in axes):
        raise tensors.wrong(f"the axes of rotary embeddings are {axes!r:.40}, not a list of zeros and ones")
    places = np.indices((height, width)).reshape(2, -1)[np.array(axes, np.int64)].T  # [patches, head]
    columns = np.arange(len(axes))
    cos, sin = (_columns(tensors, table, key, max(height, width), len(axes)) for key in ("cos", "sin"))
    return Rotary(*(np.ascontiguousarray(one[places, columns]) for one in (cos, sin)), prefix)


def _columns(tensors: Tensors, table: Any, key: str, rows: int, head: int) -> np.ndarray:
    given = tensors.part(table, key)
    try:
        raw = base64.b64decode(given, validate=True) if isinstance(given, str) else b""
    except binascii.Error:
        raw = b""
    if len(raw) != 4 * rows * head:
        raise tensors.wrong(f"{key} of rotary embeddings is {given!r:.40}, not {rows} x {head} numbers in base 64")
    values = np.frombuffer(raw, np.float32).reshape(rows, head)
    if not np.isfinite(values).all():
        raise tensors.wrong(f"{key} of rotary embeddings has numbers that are not finite")
    return values
