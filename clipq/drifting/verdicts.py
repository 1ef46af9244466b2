"""The verdict: keep the index, align the model to it, or embed it again, by thresholds that are stated with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..retrieval.intervals import Interval
from .comparing import Cell, Search
from .words import queries_in_words

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


def least(cells: Iterable[Cell], aligned: bool) -> Cell | None:
    """Of what is decisive the cell with the lowest interval."""
    return min(decisive(cells, aligned), key=lambda cell: at_ten(cell)[1], default=None)


def verdict(cells: Sequence[Cell], same_space: bool = False, tried: bool = False) -> Verdict:
    """tried: whether a map was fitted; there are cells with it where it is better than none."""
    before, after = least(cells, False), least(cells, True)
    if same_space:  # where new queries find other rows than the old ones all the same, its vectors are codes
        lossy = "" if before is None or _low(before) >= KEEP_AT else f"; of its codes, {_said(before)}"
        return Verdict("keep", f"keep the index: it says that it is of the very same space as the model{lossy}")
    if _low(before) >= KEEP_AT:
        return Verdict("keep", f"keep the index: {_said(before)}")
    if _low(after) >= KEEP_AT:
        return Verdict("align", f"align the model: with the map {_said(after)}{_than(before)}")
    return _short_of_it(cells, before, after, tried)


def _short_of_it(cells: Sequence[Cell], before: Cell | None, after: Cell | None, tried: bool) -> Verdict:
    """Where nothing reaches `KEEP_AT`: embedding again is no remedy if the old answers are lost by that as well."""
    use_map = _low(after) > _low(before)
    best = after if use_map else before
    if best is not None and _low(best) >= NEAR_AT and (again := _no_better_again(cells, use_map)):
        what, than = ("align the model: with the map", _than(before)) if use_map else ("keep the index:", "")
        return Verdict("align" if use_map else "keep", f"{what} {_said(best)}{than}; {again}")
    found = "its vectors have another width" if best is None else _said(best)
    no_map = " (--align tries a map)" if not tried else " with the map" if use_map else ""
    return Verdict("re-embed", f"embed the index again: {found}{no_map}")


def _no_better_again(cells: Sequence[Cell], aligned: bool) -> str:
    """What new queries would find on an index embedded again, in words; "" if that is more than on what there is."""
    of = cells[0].search.of  # of what the index is of: the first search is always of that
    own = [cell for cell in decisive(cells, aligned) if cell.search.of == of]
    again = next((cell for cell in cells if cell.search == Search("new", "new", "sample", of)), None)
    if again is None or not own or min(at_ten(cell)[0] for cell in own) < at_ten(again)[0]:
        return ""
    return f"{queries_in_words(again.search)} on an index embedded again would find {_percent(at_ten(again))}"


def _low(cell: Cell | None) -> float:
    return -1.0 if cell is None else at_ten(cell)[1]


def _said(cell: Cell) -> str:
    return f"{queries_in_words(cell.search).partition(',')[0]} find {_percent(at_ten(cell))} of the old first ten"


def _percent(found: Interval) -> str:
    value, low, high = (100 * one for one in found)
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _than(before: Cell | None) -> str:
    return "" if before is None else f", without it {_percent(at_ten(before))}"
