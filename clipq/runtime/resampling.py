"""torch's resize of uint8 pictures, bit by bit, in numpy: what transformers' torchvision processors resize with.

`torch.nn.functional.interpolate(mode=..., antialias=True)` of uint8 on a CPU (PyTorch's UpSampleKernel.cpp) filters
rows, then columns, with weights of 16 bits, and rounds to uint8 after each. Pillow, from which it was derived, has
weights of 32 bits, so that the two differ by one step in some pixels. All sums are whole numbers far below 2^53: as
float64 they are exact in any order, and BLAS may do them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROWS = 64  # of the picture that are float64 at once: a few MB of a photo of 12 megapixels
_COLUMNS = 8  # outputs that share one matrix product; most of its inputs are in reach of all of them
_WEIGHT_BITS = 15  # int16 without its sign
_MAX_PRECISION = 22


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    return np.where(x < 1, 1 - x, 0.0)


def _keys(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic convolution of Keys (1981) with a = -0.5, in the order of operations that decides its last bit."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_FILTERS: dict[str, tuple[int, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "bilinear": (2, _triangle),
    "bicubic": (4, _keys),
}
"""How many inputs each reaches over where nothing is made smaller, and the filter itself."""
FILTERS = tuple(_FILTERS)


@dataclass(frozen=True)
class _Taps:
    """Which inputs make each output: `weights` [outputs, reach] whole numbers, from input `first` [outputs] on."""

    first: NDArray[np.int64]
    weights: NDArray[np.float64]
    precision: int


def resize(
    pixels: NDArray[np.uint8], size: tuple[int, int], name: str, window: tuple[int, int, int, int] | None = None
) -> NDArray[np.uint8]:
    """`pixels` [height, width, 3] resized to `size` (height, width), as [3, height, width].

    name: one of `FILTERS`. window: (top, left, height, width), the part of the resized picture that is wanted; the
    rest is not computed.
    """
    top, left, height, width = window or (0, 0, *size)
    rows = _taps(pixels.shape[0], size[0], top, height, name)
    columns = _taps(pixels.shape[1], size[1], left, width, name)
    begin, end = (0, pixels.shape[0]) if rows is None else _span(rows, 0, height, pixels.shape[0])
    if rows is None:
        begin, end = top, top + height
    narrow = _filter_rows(pixels[begin:end], columns, left, width)
    return narrow if rows is None else _filter_columns(narrow, rows, begin)


def _taps(inputs: int, outputs: int, start: int, count: int, name: str) -> _Taps | None:
    """Of outputs `start` to `start + count`; None where the side keeps its length, and is left alone."""
    if inputs == outputs:
        return None
    width, kernel = _FILTERS[name]
    scale = inputs / outputs
    support = width * 0.5 * max(scale, 1.0)
    reach = math.ceil(support) * 2 + 1
    center = scale * (np.arange(outputs) + 0.5)
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)  # towards zero, as C casts
    length = np.clip(np.minimum((center + support + 0.5).astype(np.int64), inputs) - first, 0, reach)
    offsets = np.arange(reach)
    weights = kernel(((offsets + first[:, None]) - center[:, None] + 0.5) * (1.0 / scale if scale >= 1.0 else 1.0))
    weights = np.where(offsets < length[:, None], weights, 0.0)
    total = np.add.accumulate(weights, axis=1)[:, -1:]  # one after the other, as the host adds them
    weights = np.divide(weights, total, out=weights, where=total != 0)
    precision = _precision(float(weights.max()))
    whole = weights * (1 << precision)
    whole = np.trunc(whole + np.where(whole < 0, -0.5, 0.5))
    part = slice(start, start + count)
    return _Taps(first[part], whole[part], precision)


def _precision(largest: float) -> int:
    """The bits after the point of weights that fit int16."""
    bits = 0
    while bits < _MAX_PRECISION and int(0.5 + largest * (1 << (bits + 1))) < 1 << _WEIGHT_BITS:
        bits += 1
    return bits


def _span(taps: _Taps, start: int, stop: int, inputs: int) -> tuple[int, int]:
    """The first input that outputs `start` to `stop` need, and one past the last."""
    return int(taps.first[start]), min(int(taps.first[stop - 1]) + taps.weights.shape[1], inputs)


def _dense(taps: _Taps, start: int, stop: int, begin: int, end: int) -> NDArray[np.float64]:
    """The weights of outputs `start` to `stop` over inputs `begin` to `end`."""
    matrix = np.zeros((stop - start, end - begin))
    for row, output in enumerate(range(start, stop)):
        first = int(taps.first[output]) - begin
        kept = min(taps.weights.shape[1], end - begin - first)  # what reaches over the border weighs nothing
        matrix[row, first : first + kept] = taps.weights[output, :kept]
    return matrix


def _rounded(sums: NDArray[np.float64], precision: int) -> NDArray[np.float64]:
    """Whole numbers back to pixels: half added, shifted right, cut to 0 ... 255; in place."""
    sums += 1 << (precision - 1)
    sums *= 2.0**-precision
    return np.clip(np.floor(sums, out=sums), 0, 255, out=sums)


def _filter_rows(pixels: NDArray[np.uint8], taps: _Taps | None, left: int, width: int) -> NDArray[np.uint8]:
    """[height, inputs, 3] to planes [3, height, width]."""
    planes = np.empty((3, pixels.shape[0], width), np.uint8)
    if taps is None:
        planes[:] = pixels[:, left : left + width].transpose(2, 0, 1)
        return planes
    blocks = [(start, min(start + _COLUMNS, width)) for start in range(0, width, _COLUMNS)]
    spans = [_span(taps, *block, pixels.shape[1]) for block in blocks]
    matrices = [_dense(taps, *block, *span).T for block, span in zip(blocks, spans, strict=True)]
    for row in range(0, pixels.shape[0], _ROWS):
        chunk = pixels[row : row + _ROWS].transpose(2, 0, 1).astype(np.float64, order="C")
        for (start, stop), (begin, end), matrix in zip(blocks, spans, matrices, strict=True):
            planes[:, row : row + _ROWS, start:stop] = _rounded(chunk[:, :, begin:end] @ matrix, taps.precision)
    return planes


def _filter_columns(planes: NDArray[np.uint8], taps: _Taps, offset: int) -> NDArray[np.uint8]:
    """[3, inputs from `offset` on, width] to [3, outputs, width]."""
    outputs, inputs = len(taps.first), planes.shape[1] + offset
    result = np.empty((3, outputs, planes.shape[2]), np.uint8)
    for start in range(0, outputs, _COLUMNS):
        stop = min(start + _COLUMNS, outputs)
        begin, end = _span(taps, start, stop, inputs)
        chunk = planes[:, begin - offset : end - offset].astype(np.float64)
        result[:, start:stop] = _rounded(_dense(taps, start, stop, begin, end) @ chunk, taps.precision)
    return result
