"""The kinds of vectors, as a table: from float32 rows to what a store takes, and back for rescoring.

All codes are made so that plain inner products, or Hamming distances, rank as the cosines of the float rows do:

- `int8`: one step for all dimensions, symmetric. Two such vectors are compared as they are.
- `int8-per-dimension`: each dimension has its own range around its mean, as in sentence-transformers and faiss. The
  inner product of two such vectors weighs each dimension by 1 / step^2; a query from `queries` takes that back.
- `ubinary`: a bit a dimension, whether it is above the mean, eight to a byte with the first in the highest bit, as
  numpy.packbits, sentence-transformers, usearch ("b1") and faiss (IndexBinaryFlat) have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import DataError, ResultError, SchemeError, unknown_name
from .ranges import Ranges

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 65_536  # converted at a time: what is computed on the way stays small beside the matrix
_LARGEST = 127  # -128 is not used, so that -x has the codes of x with the other sign
_WIDTHS = 7.0  # standard deviations on either side of the mean; measured, see eval/results/vectors-*.jsonl
_MEAN_SIZE = math.sqrt(2 / math.pi)  # of a standard normal number: what a bit says about a value


@dataclass(frozen=True)
class Kind:
    """One dtype. Every function takes float32 rows [k, D] and the ranges (None where `ranged` is not set).

    quantize: the codes before they are stored, and how many values saturated. dequantize: codes [k, C] to [k, D].
    queries: rows to search an index of this kind with.
    """

    stored: str  # torch's name of the dtype
    ranged: bool
    quantize: Callable[[Tensor, Ranges], tuple[Tensor, int]]
    dequantize: Callable[[Tensor, Ranges], Tensor]
    queries: Callable[[Tensor, Ranges], Tensor]


def _rounded(codes: Tensor) -> tuple[Tensor, int]:
    import torch

    codes = codes.round()
    outside = int((codes.abs() > _LARGEST).sum())
    return codes.clamp(-_LARGEST, _LARGEST).to(torch.int8), outside


def _half(rows: Tensor, ranges: Ranges) -> tuple[Tensor, int]:
    import torch

    most = torch.finfo(torch.float16).max
    return rows.clamp(-most, most).half(), int((rows.abs() > most).sum())


def _one_step(ranges: Ranges) -> Tensor:
    return ranges.limit / _LARGEST


def _steps(ranges: Ranges) -> Tensor:
    return ranges.std * (_WIDTHS / _LARGEST)


def _full_scale(rows: Tensor) -> Tensor:
    """int8 rows of the same direction, each with all of the range: a ranking does not depend on a query's length."""
    import torch

    return (rows * (_LARGEST / rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-30))).round().to(torch.int8)


def _bits(rows: Tensor, ranges: Ranges) -> Tensor:
    import numpy
    import torch

    return torch.from_numpy(numpy.packbits((rows > ranges.mean).numpy(), axis=1))


def _unpacked(codes: Tensor, ranges: Ranges) -> Tensor:
    import numpy
    import torch

    bits = torch.from_numpy(numpy.unpackbits(codes.numpy(), axis=1, count=ranges.width))
    return ranges.mean + (2.0 * bits - 1.0) * (_MEAN_SIZE * ranges.std)


KINDS = {
    "float32": Kind(
        "float32", False, lambda rows, _: (rows.float(), 0), lambda codes, _: codes, lambda rows, _: rows.float()
    ),
    "float16": Kind("float16", False, _half, lambda codes, _: codes.float(), lambda rows, _: _half(rows, _)[0]),
    "int8": Kind(
        "int8",
        True,
        lambda rows, ranges: _rounded(rows / _one_step(ranges)),
        lambda codes, ranges: codes.float() * _one_step(ranges),
        lambda rows, _: _full_scale(rows),
    ),
    "int8-per-dimension": Kind(
        "int8",
        True,
        lambda rows, ranges: _rounded((rows - ranges.mean) / _steps(ranges)),
        lambda codes, ranges: codes.float() * _steps(ranges) + ranges.mean,
        lambda rows, ranges: _full_scale(rows * _steps(ranges)),  # the mean adds the same to all of its products
    ),
    "ubinary": Kind("uint8", True, lambda rows, ranges: (_bits(rows, ranges), 0), _unpacked, _bits),
}

DTYPES = tuple(KINDS)
"""What embeddings can be kept as."""


def kind_named(dtype: str) -> Kind:
    """Raises `UnknownNameError` for another dtype."""
    if dtype not in KINDS:
        raise unknown_name("dtype", dtype, DTYPES)
    return KINDS[dtype]


def kind_of(dtype: str, ranges: Ranges | None = None) -> Kind:
    """As `kind_named`; raises `SchemeError` where ranges are missing."""
    kind = kind_named(dtype)
    if kind.ranged and ranges is None:
        raise SchemeError(
            f"{dtype} vectors need ranges that are the same for every batch; give ranges=default_ranges(model, tower), "
            "or those of an earlier file."
        )
    return kind


def quantize(matrix: Tensor, dtype: str, ranges: Ranges | None = None) -> tuple[Tensor, int]:
    """`(codes, saturated)`: rows [n, D] as `dtype`, and how many values lay outside the ranges and became the nearest.

    codes: float32, float16 or int8 [n, D], or uint8 [n, ceil(D / 8)]. A row's codes depend on that row and on `ranges`
    alone. Raises `ResultError` for a row that is not finite, `DataError` for ranges of another width.
    """
    import torch

    kind = kind_of(dtype, ranges)
    _check(matrix, kind, ranges)
    parts = [kind.quantize(rows.float(), ranges) for rows in matrix.split(_ROWS)]
    return torch.cat([codes for codes, _ in parts]), sum(saturated for _, saturated in parts)


def dequantize(codes: Tensor, dtype: str, ranges: Ranges | None = None) -> Tensor:
    """float32 [n, D] near the rows that `quantize` was given: within half a step where nothing saturated.

    Of bits it is the mean plus or minus the mean distance from it. Raises `DataError` for other codes.
    """
    kind = kind_of(dtype, ranges)
    width = ranges.width if kind.ranged else codes.shape[-1]
    columns = -(-width // 8) if kind.stored == "uint8" else width
    if codes.ndim != 2 or str(codes.dtype) != f"torch.{kind.stored}" or codes.shape[1] != columns:
        found = f"{codes.dtype} {list(codes.shape)}"
        raise DataError(
            f"{dtype} codes of width {width} are torch.{kind.stored} [n, {columns}], and these are {found}."
        )
    return kind.dequantize(codes, ranges)


def queries(matrix: Tensor, dtype: str, ranges: Ranges | None = None) -> Tensor:
    """Rows [n, D] to search an index of `dtype` vectors with, by inner product (bits: by Hamming distance).

    ranges: for `int8-per-dimension` those of the index, whatever tower the rows are from; for `ubinary` those of the
    rows' own tower; the others need none. int8 queries are of full scale each, so that only the order of their products
    means anything. Raises what `quantize` does.
    """
    kind = KINDS[dtype] if dtype == "int8" else kind_of(dtype, ranges)
    _check(matrix, kind, ranges)
    return kind.queries(matrix.float(), ranges)


def _check(matrix: Tensor, kind: Kind, ranges: Ranges | None) -> None:
    if matrix.ndim != 2 or not matrix.is_floating_point():
        raise DataError(f"vectors are made from float rows [n, D], and these are {matrix.dtype} {list(matrix.shape)}.")
    if kind.ranged and ranges is not None and matrix.shape[1] != ranges.width:
        raise DataError(f"the ranges are of width {ranges.width}, and the rows of width {matrix.shape[1]}.")
    bad = (~matrix.isfinite().all(dim=-1)).nonzero().flatten().tolist()
    if bad:
        raise ResultError(
            f"row {bad[0]} is not finite ({len(bad)} such), so it has no place in an index; leave it out."
        )
