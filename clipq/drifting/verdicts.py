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
    """answer: "keep", "align", "re-embed" or "unsure". sentence: one line that says why, with the numbers."""

    answer: str
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        thresholds = {"keep_at": KEEP_AT, "near_at": NEAR_AT, "of": f"overlap@{AT}, lower end of its 95 % interval"}
        return {"answer": self.answer, "sentence": self.sentence, "thresholds": thresholds}


@dataclass(frozen=True)
class Known:
    """What a verdict looks at beside the cells. same_space: whether the index says that it is of the model's space.
    tried: whether a map was fitted; there are cells with it where it is better than none. exact: whether the index
    holds the vectors that were put in; of codes the old answers are not known but for those of old texts.
    """

    same_space: bool = False
    tried: bool = False
    exact: bool = True


def decisive(cells: Iterable[Cell], aligned: bool) -> list[Cell]:
    """What an index has to stand: NEW queries, texts too, on OLD rows and on rows of both models.

    Of texts what the old ones found; where that is not known, what the new ones find among new vectors.
    """
    found = [cell for cell in cells if _asked_now(cell, aligned) and not _is_part(cell)]
    told = any(_kind(cell) == ("text", "old") for cell in found)
    return [cell for cell in found if not (told and _by_new(cell))]


def _asked_now(cell: Cell, aligned: bool) -> bool:
    search = cell.search
    of_interest = search.queries == "new" and search.index in ("old", "mixed")
    return of_interest and search.aligned == aligned and at_ten(cell) is not None


def _is_part(cell: Cell) -> bool:
    """Whether another cell says the same of the whole index."""
    return (cell.search.index, cell.search.scope) == ("old", "sample") and not _by_new(cell)


def _by_new(cell: Cell) -> bool:
    """Whether it is compared with what the new model finds by itself, which no index of old vectors ever gave."""
    return cell.reference.queries == "new"


def _kind(cell: Cell) -> tuple[str, str]:
    """Cells of one kind are compared with the same queries' answers."""
    return cell.search.of, cell.reference.queries


def depth(cell: Cell) -> int:
    """How many rows `at_ten` is of: ten, or of a smaller index the first."""
    return AT if AT in cell.overlap else 1


def at_ten(cell: Cell) -> Interval | None:
    """overlap@10, or of a smaller index what it has."""
    return cell.overlap.get(depth(cell))


def least(cells: Iterable[Cell], aligned: bool) -> Cell | None:
    """Of what is decisive the cell with the lowest interval."""
    return _lowest(decisive(cells, aligned))


def _lowest(cells: Iterable[Cell]) -> Cell | None:
    return min(cells, key=_low, default=None)


def verdict(cells: Sequence[Cell], known: Known | None = None) -> Verdict:
    """What to do with an index whose searches these are."""
    known = known or Known()
    before, after = least(cells, False), least(cells, True)
    if known.same_space:
        same = "it says that it is of the very same space as the model"
        return Verdict("keep", f"keep the index: {same}{_for_all_that(before, known.exact)}")
    if _low(before) >= KEEP_AT:
        return Verdict("keep", f"keep the index: {_said(before, '' if known.exact else 'at least ')}")
    if not known.exact and (before is not None or _low(after) < KEEP_AT):
        return _of_codes(cells, before, known.tried)
    if _low(after) >= KEEP_AT:
        return Verdict("align", f"align the model: with the map {_said(after)}{_than(before)}")
    return _short_of_it(cells, before, after, known.tried)


def _of_codes(cells: Sequence[Cell], before: Cell | None, tried: bool) -> Verdict:
    """Codes as queries are what nobody ever asked, so that what they find is no measure of what may be lost; old text
    queries that somebody kept are, for an index of pictures.
    """
    of = cells[0].search.of if cells else "image"
    told = [cell for cell in cells if of == "image" and _kind(cell) == ("text", "old")]
    if told:
        judged = verdict(told, Known(tried=tried))
        return Verdict(judged.answer, f"{judged.sentence}; by texts alone, as the index holds codes")
    found = "its vectors have another width" if before is None else _said(before, "at least ")
    also = ", or give the old model's text queries: --texts FILE --old-texts FILE" if of == "image" else ""
    return Verdict(
        "unsure",
        f"unsure: the index holds codes, and what old queries find on them is not known; {found}. Compare with the "
        f"float vectors that it was made of{also}",
    )


def _short_of_it(cells: Sequence[Cell], before: Cell | None, after: Cell | None, tried: bool) -> Verdict:
    """Where nothing reaches `KEEP_AT`: embedding again is no remedy if the old answers are lost by that as well."""
    use_map = _low(after) > _low(before)
    best = after if use_map else before
    if best is not None and _low(best) >= NEAR_AT and (again := _no_better_again(cells, use_map)):
        what, than = ("align the model: with the map", _than(before)) if use_map else ("keep the index:", "")
        return Verdict("align" if use_map else "keep", f"{what} {_said(best)}{than}; {again}")
    found = "its vectors have another width" if best is None else _said(best)
    with_map, no_map = "with the map " if use_map else "", "" if tried else " (--align tries a map)"
    return Verdict("re-embed", f"embed the index again: {with_map}{found}{_unless_told(best)}{no_map}")


def _no_better_again(cells: Sequence[Cell], aligned: bool) -> str:
    """What new queries find among as many rows of theirs as were embedded again, in words; "" if that is more than
    among old and mixed ones, or if it is another kind of queries that finds too little.
    """
    of = cells[0].search.of  # of what the index is of: the first search is always of that
    again = next((cell for cell in cells if cell.search == Search("new", "new", "sample", of)), None)
    short = [cell for cell in decisive(cells, aligned) if _low(cell) < KEEP_AT]
    if again is None or any(_kind(cell) != _kind(again) for cell in short):
        return ""
    same = [cell for cell in cells if _kind(cell) == _kind(again) and cell.rows == again.rows]
    alike = [cell for cell in same if _asked_now(cell, aligned)]  # other numbers of rows are another scale
    worst = min(alike, key=lambda cell: at_ten(cell)[0], default=None)
    if worst is None or at_ten(worst)[0] < at_ten(again)[0]:
        return ""
    share = "none" if worst.search.index == "old" else "half"
    less = "" if worst is least(cells, aligned) else f"{_percent(at_ten(worst))} with {share} of them new, and "
    return f"of the {again.rows:,} rows that both models embedded, {less}{_percent(at_ten(again))} with all of them new"


def _low(cell: Cell | None) -> float:
    return -1.0 if cell is None else at_ten(cell)[1]


def _said(cell: Cell, at_least: str = "") -> str:
    """ "new texts find 94.0 % (93.7 to 94.2) of the old first ten where half of 500 sampled rows are new"."""
    first = "first ten" if depth(cell) == AT else "nearest row"
    of = f"the {first} that they find among new vectors" if _by_new(cell) else f"the old {first}"
    where = f" where half of {cell.rows:,} sampled rows are new" if cell.search.index == "mixed" else ""
    if cell.search.scope == "sample" and not where:
        where = f", of {cell.rows:,} sampled rows"
    return f"{queries_in_words(cell.search).partition(',')[0]} find {at_least}{_percent(at_ten(cell))} of {of}{where}"


def _for_all_that(cell: Cell | None, exact: bool) -> str:
    """Where new queries find other rows than the old ones all the same."""
    if cell is None or _low(cell) >= KEEP_AT:
        return ""
    return f"; {'here' if exact else 'of its codes'}, {_said(cell)}"


def _unless_told(cell: Cell | None) -> str:
    near = cell is not None and _by_new(cell) and _low(cell) >= NEAR_AT
    return "; --old-texts FILE would tell what old texts found" if near else ""


def _percent(found: Interval) -> str:
    value, low, high = (100 * one for one in found)
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _than(before: Cell | None) -> str:
    return "" if before is None else f", without it {_percent(at_ten(before))}"
