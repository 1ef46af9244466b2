"""What an index of codes found, sorted anew by vectors that keep more of the rows: exact scores of few candidates.

The rows may lie in a file that is mapped into memory: of these only the candidates are read, each once, in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from ..errors import DataError, ResultError
from .codes import dequantize, kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .ranges import Ranges

_VALUES = 1 << 21  # of candidates at a time: 16 MB as float64, whatever the number of queries and candidates
_NONE = -1  # what faiss writes where it found too few


class Rescored(NamedTuple):
    """The best candidates of each query, the best first: int64 [queries, k] and float64 [queries, k].

    Where a query has fewer candidates than k, the rest are -1 with a score of -infinity.
    """

    rows: NDArray[numpy.int64]
    scores: NDArray[numpy.float64]


def rescore(
    asked: Any,
    candidates: Any,
    rows: Any,
    k: int = 10,
    *,
    dtype: str = "float32",
    ranges: Ranges | None = None,
    unit: bool = False,
    counts: Any = None,
) -> Rescored:
    """The `k` of each query's candidates with the largest inner products with it, by float64 arithmetic.

    asked: float queries [queries, D], an array or a tensor; never codes, whose loss is what this takes back.
    candidates: whole numbers [queries, c], rows that an index found, in any order; -1 stands for none (as faiss has
    it), and one that is named twice counts once. Of usearch give what its search returns, not its `keys` alone: where
    it found too few, these end in zeros that are no rows, which its `counts` say; or give `counts`, whole numbers
    [queries], beside the keys. rows: [n, D] as `dtype` (bits: [n, D / 8]): an array (also a mapped
    one: `numpy.load(path, mmap_mode="r")`), a tensor, or anything with a `shape` that gives rows for an increasing
    array of places. ranges: of int8 and bits. unit: the rows were of unit length before they became codes, and are
    given it back, which makes the score the cosine with a unit query.

    Of equal scores the first row is the first, so that neither the order of the candidates nor their number changes
    what is found. With float32 rows, and all of them as candidates, it is exact search. Raises `DataError` for shapes,
    dtypes and candidates that do not fit, `ResultError` for queries or rows that are not finite, `SchemeError` for
    missing ranges.
    """
    if len(rows.shape) != 2:
        raise DataError(f"rows are a matrix [n, D], and these are {list(rows.shape)}.")
    width = ranges.width if kind_of(dtype, ranges).ranged else rows.shape[1]
    found = _places(*_counted(candidates, counts), rows.shape[0])
    queries = _floats(asked, len(found), width)
    if isinstance(k, (bool, numpy.bool_)) or not isinstance(k, (int, numpy.integer)) or k < 1:
        raise DataError(f"k is {k!r}; give how many rows of each query are wanted, a whole number >= 1.")
    found = numpy.sort(found, axis=1)
    found[:, 1:][found[:, 1:] == found[:, :-1]] = _NONE
    scores = numpy.full(found.shape, -numpy.inf)
    at = numpy.nonzero(found != _NONE)
    scores[at] = _scores(queries, at[0], found[at], _Reader(rows, dtype, ranges, unit))
    return _best(found, scores, k)


def _scores(
    queries: NDArray[numpy.float64], which: NDArray[numpy.int64], places: NDArray[numpy.int64], read: _Reader
) -> NDArray[numpy.float64]:
    """[m] of the pairs of a query (`which`) and a row (`places`); rows are read in order, so that each is read once."""
    order = numpy.argsort(places, kind="stable")
    scores = numpy.empty(len(places))
    size = max(1, _VALUES // queries.shape[1])
    for start in range(0, len(order), size):
        pairs = order[start : start + size]
        wanted, each = numpy.unique(places[pairs], return_inverse=True)
        # A row's sum is over that row alone, so equal rows have equal scores wherever they stand.
        scores[pairs] = numpy.einsum("md,md->m", queries[which[pairs]], read(wanted)[each.reshape(-1)])
    return scores


def _best(found: NDArray[numpy.int64], scores: NDArray[numpy.float64], k: int) -> Rescored:
    best = numpy.argsort(-scores, axis=1, kind="stable")[:, :k]
    rows, best_scores = (numpy.take_along_axis(one, best, axis=1) for one in (found, scores))
    if (short := k - rows.shape[1]) > 0:
        rows = numpy.pad(rows, ((0, 0), (0, short)), constant_values=_NONE)
        best_scores = numpy.pad(best_scores, ((0, 0), (0, short)), constant_values=-numpy.inf)
    return Rescored(rows, best_scores)


class _Reader:
    """float64 [m, D] of the rows at increasing places."""

    def __init__(self, rows: Any, dtype: str, ranges: Ranges | None, unit: bool):
        self.rows, self.dtype, self.ranges, self.unit = rows, dtype, ranges, unit

    def __call__(self, places: NDArray[numpy.int64]) -> NDArray[numpy.float64]:
        import torch

        codes = self.rows[places]
        codes = codes.cpu() if isinstance(codes, torch.Tensor) else torch.from_numpy(_native(codes))
        values = dequantize(codes, self.dtype, self.ranges).double().numpy()
        finite = numpy.isfinite(values).all(axis=1)
        if not finite.all():
            raise ResultError(f"row {places[numpy.argmin(finite)]} is not finite, so it has no place in an index.")
        if self.unit:
            lengths = numpy.sqrt(numpy.einsum("md,md->m", values, values))
            values = values / numpy.maximum(lengths, 1e-30)[:, None]
        return values


def _floats(asked: Any, count: int, width: int) -> NDArray[numpy.float64]:
    import torch

    queries = asked.detach().cpu().double().numpy() if isinstance(asked, torch.Tensor) else numpy.asarray(asked)
    is_float = asked.is_floating_point() if isinstance(asked, torch.Tensor) else queries.dtype.kind == "f"
    if not is_float or queries.shape != (count, width):
        raise DataError(
            f"the queries are {asked.dtype} {list(queries.shape)}, and these candidates and rows need float queries "
            f"[{count}, {width}]: embeddings as the model gives them, not codes."
        )
    finite = numpy.isfinite(queries).all(axis=1)
    if not finite.all():
        raise ResultError(f"query {numpy.argmin(finite)} is not finite; leave it out.")
    return queries.astype(numpy.float64)


def _native(codes: Any) -> NDArray[Any]:
    """In this machine's order of bytes."""
    codes = numpy.ascontiguousarray(codes)
    return codes.astype(codes.dtype.newbyteorder("="), copy=False)


def _counted(candidates: Any, counts: Any) -> tuple[Any, Any]:
    """What usearch returns, by one query (`Matches`) or several (`BatchMatches`), as keys and their counts."""
    if not (hasattr(candidates, "keys") and hasattr(candidates, "distances")):
        return candidates, counts
    keys = numpy.asarray(candidates.keys)
    if keys.ndim == 1:  # of one query, and only what was found
        return keys[None], counts
    return keys, getattr(candidates, "counts", None) if counts is None else counts


def _places(candidates: Any, counts: Any, count: int) -> NDArray[numpy.int64]:
    """int64 [queries, c], checked. An index's keys may be unsigned."""
    found = numpy.asarray(candidates)
    if found.ndim != 2 or found.dtype.kind not in "iu":
        raise DataError(
            f"candidates are whole numbers [queries, c], as an index gives them, and these are {found.dtype} "
            f"{list(found.shape)}."
        )
    if counts is not None:
        found = _within(found, numpy.asarray(counts))
    outside = (found >= count) | (found < _NONE)
    if outside.any():
        raise DataError(
            f"a candidate is {found[outside][0]}, and there are {count} rows, 0 to {count - 1} (-1 stands for none); "
            "where an index has keys of its own, give the rows that they stand for."
        )
    return found.astype(numpy.int64)


def _within(found: NDArray[Any], counts: NDArray[Any]) -> NDArray[numpy.int64]:
    """int64 [queries, c] with none beyond each query's count."""
    if counts.shape != found.shape[:1] or counts.dtype.kind not in "iu":
        raise DataError(
            f"counts are whole numbers [{len(found)}], how many candidates each query has, and these are "
            f"{counts.dtype} {list(counts.shape)}."
        )
    found = found.astype(numpy.int64)
    found[numpy.arange(found.shape[1]) >= counts[:, None]] = _NONE
    return found
