"""Exact search by cosine over an index that comes in blocks: memory for one block, at any number of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError

Blocks = Iterable[tuple[int, Tensor]]
"""Parts of an index in order: the number of the first row, and float32 rows [k, D], which need not be normalized."""

_SCORES = 1 << 24  # held at a time: 64 MB
DEPTH = 100
"""How deep rankings are compared."""
_SPARE = 28  # rows kept below that, whose scores tell ties at the end


@dataclass(frozen=True)
class Ranking:
    """For each query its nearest rows, nearest first: `rows` int64 [q, k] and their cosines, float32 [q, k].

    Where fewer rows than k were there, the last are -1 with a cosine of -infinity.
    """

    rows: Tensor
    scores: Tensor

    @property
    def found(self) -> int:
        """How many rows every query found."""
        return int((self.rows >= 0).sum(dim=1).min()) if len(self.rows) else 0

    def part(self, queries: slice) -> Ranking:
        """The ranking of some of the queries."""
        return Ranking(self.rows[queries], self.scores[queries])


def nearest(queries: Tensor, index: Blocks, left_out: Tensor | None = None, k: int = DEPTH + _SPARE) -> Ranking:
    """The `k` rows of `index` with the largest cosine to each of `queries`, float [q, D]; of equals the first rows.

    left_out: int64 [q] or [q, m], rows that each query is not to find (its own), -1 for none. Raises `DataError` for a
    block of another width.
    """
    queries = F.normalize(queries.float(), dim=1)
    rows = torch.full((len(queries), k), -1, dtype=torch.int64)
    best = Ranking(rows, torch.full((len(queries), k), -torch.inf))
    for start, block in _cut(index, max(1, _SCORES // max(1, len(queries)))):
        if block.shape[1] != queries.shape[1]:
            raise DataError(f"queries of width {queries.shape[1]} cannot search an index of width {block.shape[1]}.")
        best = _better(best, _scored(queries, start, block, left_out), start)
    return best


def _cut(index: Blocks, most: int) -> Iterator[tuple[int, Tensor]]:
    for start, block in index:
        for offset in range(0, len(block), most):
            yield start + offset, block[offset : offset + most]


def _scored(queries: Tensor, start: int, block: Tensor, left_out: Tensor | None) -> Tensor:
    """[q, k] cosines with the rows of a block."""
    scores = queries @ F.normalize(block.float(), dim=1).T
    if left_out is not None:
        own = left_out.view(len(left_out), -1) - start
        query, which = ((own >= 0) & (own < len(block))).nonzero(as_tuple=True)
        scores[query, own[query, which]] = -torch.inf
    return scores


def _better(best: Ranking, scores: Tensor, start: int) -> Ranking:
    """The best of those so far and of a block that follows them; equal ones stay in the order of their rows."""
    k = best.rows.shape[1]
    values, columns = scores.topk(min(k, scores.shape[1]), dim=1)
    columns, order = columns.sort(dim=1)
    values = values.gather(1, order)
    both = torch.cat([best.scores, values], dim=1)
    rows = torch.cat([best.rows, torch.where(values.isneginf(), -1, columns + start)], dim=1)
    scores, order = both.sort(dim=1, descending=True, stable=True)
    return Ranking(rows.gather(1, order)[:, :k].contiguous(), scores[:, :k].contiguous())


def in_blocks(matrix: Tensor, size: int = 1 << 14) -> Iterator[tuple[int, Tensor]]:
    """A matrix in memory as an index."""
    for start in range(0, len(matrix), size):
        yield start, matrix[start : start + size]


def replaced(index: Blocks, rows: Tensor, new: Tensor) -> Iterator[tuple[int, Tensor]]:
    """`index` with the rows `rows` (int64 [m], each once) replaced by `new` [m, D]: an index of two models."""
    order = rows.argsort()
    rows, new = rows[order], new[order]
    for start, block in index:
        ends = torch.tensor([start, start + len(block)])
        first, last = torch.searchsorted(rows, ends).tolist()
        if first < last:
            block = block.clone()
            block[rows[first:last] - start] = new[first:last].to(block.dtype)
        yield start, block


def gathered(index: Blocks, rows: Tensor) -> Tensor:
    """float32 [m, D]: the rows `rows` (int64 [m]) of `index`, in their order. Raises `DataError` for a missing one."""
    order = rows.argsort()
    wanted, parts = rows[order], []
    for start, block in index:
        first, last = torch.searchsorted(wanted, torch.tensor([start, start + len(block)])).tolist()
        parts.append(block[wanted[first:last] - start].float())
    found = torch.cat(parts) if parts else torch.empty(0, 0)
    if len(found) != len(rows):
        raise DataError(f"the index ends before row {int(wanted[-1])}; it changed, or is cut off. Make it again.")
    return found[order.argsort()]
