"""The verdict: keep the index, align the model to it, or embed it again, by thresholds that are stated with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..retrieval.intervals import Interval
from .comparing import Cell, Search

KEEP_AT = 0.95
"""Of the first ten rows, by the lower end of the interval: what approximate search usually finds of exact search."""
NEAR_AT = 0.9
"""From here on the two are one space, and embedding again is advised only if it brings more of the old answers."""
AT = 10


@dataclass(frozen=True)
class Verdict:
    """answer: "keep", "align" or "re-embed". sentence: one line that says why, with the numbers."""

    answer: str
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        thresholds = {"keep_at": KEEP_AT, "near_at": NEAR_AT, "of": f"overlap@{AT}, lower end of its 95 % interval"}
        return {"answer": self.answer, "sentence": self.sentence, "thresholds": thresholds}


def decisive(cells: Iterable[Cell], aligned: bool) -> list[Cell]:
    """What an index has to stand: NEW queries, texts too, on OLD rows and on rows of both models."""
    return [
        cell
        for cell in cells
        if cell.search.aligned == aligned
        and cell.search.queries == "new"
        and cell.search.index in ("old", "mixed")
        and at_ten(cell) is not None
        and not (cell.search.index == "old" and cell.search.scope == "sample" and cell.search.of != "text")
    ]


def at_ten(cell: Cell) -> Interval | None:
    """overlap@10, or of a smaller index what it has."""
    return cell.overlap.get(AT) or cell.overlap.get(1)


def verdict(cells: Sequence[Cell], same_space: bool = False, tried: bool = False) -> Verdict:
    """tried: whether a map was fitted, so that there are cells with it."""
    if same_space:
        return Verdict("keep", "keep the index: it says that it is of the very same space as the model")
    before, after = (_worst(decisive(cells, aligned)) for aligned in (False, True))
    if before is not None and before[1] >= KEEP_AT:
        return Verdict("keep", f"keep the index: new queries find {_said(before)} of the old first ten")
    if after is not None and after[1] >= KEEP_AT:
        return Verdict(
            "align", f"align the model: new queries then find {_said(after)} of the old first ten{_than(before)}"
        )
    return _short_of_it(cells, before, after, tried)


def _short_of_it(cells: Sequence[Cell], before: Interval | None, after: Interval | None, tried: bool) -> Verdict:
    """Where nothing reaches `KEEP_AT`: embedding again is no remedy if the old answers are lost by that as well."""
    again = next((at_ten(one) for one in cells if one.search == Search("new", "new", "sample", one.search.of)), None)
    best, answer = (after, "align") if after and (not before or after[1] > before[1]) else (before, "keep")
    if best and again and best[1] >= NEAR_AT and best[0] >= again[0]:
        what = {"keep": "keep the index: ", "align": "align the model: "}[answer]
        than = _than(before) if answer == "align" else ""
        return Verdict(
            answer,
            f"{what}new queries find {_said(best)} of the old first ten{than}; on an index embedded again they would "
            f"find {_said(again)}",
        )
    found = "its vectors have another width" if best is None else f"new queries find {_said(best)} of its first ten"
    return Verdict("re-embed", f"embed the index again: {found}{'' if tried else ' (--align tries a map)'}")


def _worst(cells: Sequence[Cell]) -> Interval | None:
    return min((at_ten(cell) for cell in cells), key=lambda one: one[1], default=None)


def _said(found: Interval) -> str:
    value, low, high = (100 * one for one in found)
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _than(before: Interval | None) -> str:
    return "" if before is None else f", without the map {_said(before)}"
