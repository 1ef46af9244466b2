"""How alike two rankings of the same rows are, for each query: recall, overlap, and rank-biased overlap."""

from __future__ import annotations

import torch
from torch import Tensor

from .search import DEPTH, Ranking

AT = (1, 10, 100)
_TIE = 1e-6  # cosines that differ by less are equal: float32 sums of unit vectors differ by as much
_PERSISTENCE = 0.9  # of rank-biased overlap: the first ten rows have 86 % of the weight (Webber et al., section 4.4)
_QUERIES = 256  # compared at a time: [queries, depth, depth] booleans


def recall(reference: Ranking, found: Ranking, at: int) -> Tensor:
    """[q] 1 where a nearest row of `reference` is among the first `at` of `found`, else 0; float64.

    recall@R of Jégou et al., "Product quantization for nearest neighbor search", IEEE TPAMI 33 (2011), section V.
    """
    return _good(reference, found, 1, at).any(dim=1).double()


def overlap(reference: Ranking, found: Ranking, at: int) -> Tensor:
    """[q] the share of the first `at` of `found` that are among the first `at` of `reference`; float64.

    k-recall@k of Aumüller et al., "ANN-Benchmarks", Information Systems 87 (2020), section 2.2: a row that
    the reference scores as its last one counts as well, so that equal pictures cost nothing.
    """
    return _good(reference, found, at, at).double().mean(dim=1)


def _good(reference: Ranking, found: Ranking, among: int, at: int) -> Tensor:
    """[q, at] whether a row found is as good in `reference` as the last of its first `among`."""
    parts = []
    for start in range(0, len(found.rows), _QUERIES):
        some = slice(start, start + _QUERIES)
        known, least = reference.rows[some], reference.scores[some, among - 1 : among]
        same = found.rows[some, :at, None] == known[:, None, :]
        good = (reference.scores[some] >= least - _TIE) & (known >= 0)
        parts.append((same & good[:, None, :]).any(dim=2))
    return torch.cat(parts) if parts else torch.zeros(0, at, dtype=torch.bool)


def rank_biased_overlap(reference: Ranking, found: Ranking, depth: int = DEPTH) -> Tensor:
    """[q] how alike the two orders are, 0 to 1, the first rows weighing most; float64.

    Extrapolated rank-biased overlap with p = 0.9: Webber, Moffat & Zobel, "A similarity measure for indefinite
    rankings", ACM TOIS 28 (2010), equation 30, for two rankings of one length.
    """
    depth = min(depth, reference.found, found.found)
    if depth < 1:
        return torch.zeros(len(found.rows), dtype=torch.float64)
    places = torch.arange(depth)
    deeper = torch.maximum(places[:, None], places[None, :])  # the depth at which a pair of equal rows is in both
    common = torch.zeros(len(found.rows), depth, dtype=torch.float64)
    for start in range(0, len(found.rows), _QUERIES):
        some = slice(start, start + _QUERIES)
        same = reference.rows[some, :depth, None] == found.rows[some, None, :depth]
        query, one, other = same.nonzero(as_tuple=True)
        common.index_put_((query + start, deeper[one, other]), torch.ones((), dtype=torch.float64), accumulate=True)
    agreement = common.cumsum(dim=1) / torch.arange(1, depth + 1)
    weights = _PERSISTENCE ** torch.arange(1, depth + 1, dtype=torch.float64)
    return agreement[:, -1] * weights[-1] + (1 - _PERSISTENCE) / _PERSISTENCE * (agreement * weights).sum(dim=1)


def share_of(rows: Tensor, found: Ranking, at: int) -> Tensor:
    """[q] how many of the first `at` found are of `rows` (int64 [m]), as a share; float64."""
    return torch.isin(found.rows[:, :at], rows).double().mean(dim=1)
