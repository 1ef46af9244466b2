"""`Drift`: what was measured, as numbers with their intervals, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..retrieval.intervals import Loose, percentile_intervals
from .comparing import Cell
from .verdicts import Known, Verdict, verdict

if TYPE_CHECKING:
    from torch import Tensor

    from ..alignment import Map

SHARES = {"min": 0.0, "p1": 0.01, "p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
"""The percentiles of the cosines that are reported."""


@dataclass(frozen=True)
class Drift:
    """What `drift` found. All numbers with an interval are (value, low, high): 95 %, by bootstrap over queries; low and
    high are None where there can be none, as of the smallest cosine.

    old, new, data: what was compared, as JSON values. cosines: of the pictures (or texts) with themselves, by
    percentile, without the map ("before") and with it ("after"); empty where the widths differ. texts: the same of text
    queries, where the old model's are known. cells: the searches. map: from the new space to the old, where one was
    fitted; `alignment` says how. differences: between the space that the index states and the model's, in words; None
    where it states none.
    """

    old: Mapping[str, Any]
    new: Mapping[str, Any]
    data: Mapping[str, Any]
    cosines: Mapping[str, Mapping[str, Loose]]
    cells: tuple[Cell, ...]
    texts: Mapping[str, Mapping[str, Loose]] = field(default_factory=dict)
    map: Map | None = None
    differences: tuple[str, ...] | None = None
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def same_space(self) -> bool:
        """Whether the index says that it is of the model's very own space."""
        return self.differences is not None and not self.differences

    @property
    def verdict(self) -> Verdict:
        return verdict(self.cells, Known(self.same_space, self.map is not None, self.old["exact"]))

    @property
    def matched(self) -> str:
        """How many rows of the index were found among the inputs, in words."""
        data = self.data
        by = f"{data['matched']:,} of {self.old['rows']:,} rows are of the {data['inputs']:,} {data['tower']}s"
        return f"{by}, by {data['matched_by']}"

    @property
    def few_matched(self) -> bool:
        """Whether fewer than half of the rows, or of the inputs if these are fewer, were found: names that mislead."""
        return 2 * self.data["matched"] < min(self.old["rows"], self.data["inputs"])

    @property
    def alignment(self) -> Mapping[str, Any] | None:
        return None if self.map is None else self.map.about

    def cell(self, queries: str, index: str, scope: str = "index", of: str = "image", aligned: bool = False) -> Cell:
        """The cell of one search. Raises `LookupError` where it was not made."""
        wanted = (queries, index, scope, of, aligned)
        for cell in self.cells:
            found = cell.search
            if (found.queries, found.index, found.scope, found.of, found.aligned) == wanted:
                return cell
        raise LookupError(f"no search of {wanted}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "verdict": self.verdict.to_dict(),
            "old": dict(self.old),
            "new": dict(self.new),
            "data": dict(self.data),
            "cosines": _listed(self.cosines),
            "text_cosines": _listed(self.texts),
            "alignment": None if self.alignment is None else dict(self.alignment),
            "same_space": self.same_space,
            "space_differences": None if self.differences is None else list(self.differences),
            "searches": [cell.to_dict() for cell in self.cells],
            **self.run,
        }


def _listed(cosines: Mapping[str, Mapping[str, Loose]]) -> dict[str, dict[str, list[float | None]]]:
    return {when: {name: list(one) for name, one in found.items()} for when, found in cosines.items()}


def cosine_percentiles(cosines: Tensor) -> dict[str, Loose]:
    """Of `cosines` [n]; the extremes have no interval."""
    return dict(zip(SHARES, percentile_intervals(cosines, tuple(SHARES.values())), strict=True))
