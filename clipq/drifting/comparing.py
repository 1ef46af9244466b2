"""One search compared with another: a `Cell` of a report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..retrieval.intervals import Interval, mean_interval
from ..retrieval.ranks import AT, overlap, rank_biased_overlap, recall, share_of
from ..retrieval.search import Ranking


@dataclass(frozen=True)
class Search:
    """What was asked, in what: queries "old" or "new" of a tower, in an index "old", "new", "mixed" or "partly new".

    scope: "index" for all of its rows, "sample" for those that both models have embedded. aligned: whether what is new
    went through the map.
    """

    queries: str
    index: str
    scope: str
    of: str = "image"
    aligned: bool = False


@dataclass(frozen=True)
class Cell:
    """How much of what a reference search finds a search finds too: each number with its 95 % interval.

    recall, overlap: by how many rows are looked at, see `retrieval.ranks`. rank_overlap: rank-biased overlap.
    itself: the share of queries whose own row is the nearest of all. favour: of a mixed index, by how much rows of the
    new model have a larger part of the first ten than in the reference.
    """

    search: Search
    reference: Search
    queries: int
    rows: int
    recall: dict[int, Interval]
    overlap: dict[int, Interval]
    rank_overlap: Interval
    itself: Interval | None = None
    favour: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        found = asdict(self)
        for key in ("recall", "overlap"):
            found[key] = {str(at): list(interval) for at, interval in found[key].items()}
        for key in ("rank_overlap", "itself", "favour"):
            found[key] = None if found[key] is None else list(found[key])
        return found


@dataclass(frozen=True)
class Extra:
    """What only some searches have. own: [q] the cosine of each query with its own row. new_rows: int64, those of a
    mixed index that are of the new model.
    """

    own: Tensor | None = None
    new_rows: Tensor | None = field(default=None)


def compared(
    search: Search, reference: Search, found: Ranking, truth: Ranking, rows: int, extra: Extra | None = None
) -> Cell:
    """The cell of `found`, the rankings of `search`, against `truth`, those of `reference`, over the same queries."""
    extra, deepest = extra or Extra(), min(found.found, truth.found)
    at = [one for one in AT if one <= deepest]
    itself = None if extra.own is None else mean_interval((extra.own > found.scores[:, 0]).double())
    favour = None
    if extra.new_rows is not None and deepest:
        ten = min(10, deepest)
        favour = mean_interval(share_of(extra.new_rows, found, ten) - share_of(extra.new_rows, truth, ten))
    return Cell(
        search,
        reference,
        len(found.rows),
        rows,
        {one: mean_interval(recall(truth, found, one)) for one in at},
        {one: mean_interval(overlap(truth, found, one)) for one in at},
        mean_interval(rank_biased_overlap(truth, found)),
        itself,
        favour,
    )


def own_cosines(queries: Tensor, rows: Tensor) -> Tensor:
    """[q] the cosine of each query with the row beside it."""
    return torch.cosine_similarity(queries.float(), rows.float(), dim=1)
