"""Which row of an index is of which picture or text."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from unicodedata import normalize

from ..errors import DataError

_SHOWN = 2
_MOST = 1000  # more rows of one name; what more have is no name

Parts = tuple[str, ...]
"""A path from its end: the file's name, its folder, the folder of that."""


@dataclass(frozen=True)
class Matched:
    """Pairs of a row of the index and a place in the data, in the order of the rows; `by` says how they were found.

    twins: of rows whose name others have as well these others: rows of the same input. found: how many rows of the
    index were found in all, `twins` too, also where these are only some of them (see `some`).
    """

    rows: tuple[int, ...]
    places: tuple[int, ...]
    by: str
    twins: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    found: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, chosen: Iterable[int]) -> Matched:
        """Some of the pairs, by their number."""
        chosen = sorted(chosen)
        rows, places = (tuple(of[i] for i in chosen) for of in (self.rows, self.places))
        return Matched(rows, places, self.by, {row: self.twins[row] for row in rows if row in self.twins}, self.found)


def match(index: Sequence[str], data: Sequence[str], texts: bool = False) -> Matched:
    """The rows named `index` that are inputs named `data`: by the whole name, by the end of the path that both have,
    or by that without the file's ending: the first that finds most of the rows, or of the data, else what finds most.

    Names are compared in Unicode's composed form, paths with "/" for either slash. By paths the longest common end
    decides; a row or a file for which two are as good is left out, and where folders agree elsewhere, a file's name in
    another folder is another file. Of inputs that are named twice the last is taken; of rows the first, and the others
    are its `twins`. Raises `DataError`, with some of both, if there is no pair.
    """
    rows, more = _rows_by_name(index, texts)
    places = {_comparable(name, texts): place for place, name in enumerate(data)}
    by, pairs = _most(islice(_ways(rows, places), 1 if texts else None), min(len(rows), len(places)) / 2)
    if pairs:
        return _matched(by, pairs, rows, more)
    other = "texts that it was made of" if texts else "folder that the index was made of, or other names"
    raise DataError(
        f"none of the {len(index)} names of the index is one of the {len(data)} of the data: the index has "
        f"{', '.join(map(repr, index[:_SHOWN]))}, the data {', '.join(map(repr, data[:_SHOWN]))}. Give the {other}."
    )


def _most(ways: Iterable[tuple[str, dict[str, int]]], enough: float) -> tuple[str, dict[str, int]]:
    """The first that finds enough, else the one that finds most."""
    best: tuple[str, dict[str, int]] = ("", {})
    for by, pairs in ways:
        best = (by, pairs) if len(pairs) > len(best[1]) else best
        if len(best[1]) >= enough:
            break
    return best


def _comparable(name: str, texts: bool) -> str:
    return normalize("NFC", name if texts else name.replace("\\", "/"))


def _rows_by_name(index: Sequence[str], texts: bool) -> tuple[dict[str, int], dict[str, list[int]]]:
    """The first row of each name, and the others of names that stand several times."""
    rows: dict[str, int] = {}
    more: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(index):
        if rows.setdefault(one := _comparable(name, texts), row) != row:
            more[one].append(row)
    return rows, more


def _ways(rows: Mapping[str, int], places: Mapping[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Each way's name, and the place of each name of a row that it finds."""
    yield "name", {name: places[name] for name in rows if name in places}
    for kind, cut in (("", _same), (" without ending", _stem)):
        found, deepest = _by_ends(rows, places, cut)
        yield ("path" if deepest > 1 and not kind else "file name") + kind, found


def _same(name: str) -> str:
    return name


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _by_ends(rows: Iterable[str], places: Mapping[str, int], cut: Callable[[str], str]) -> tuple[dict[str, int], float]:
    """The place of each row's name, by the longest end of the path that they have in common; and the longest of all."""
    ends = sorted((_parts(name, cut), name) for name in places)
    keys = [parts for parts, _ in ends]
    claims: dict[str, list[tuple[float, bool, str]]] = defaultdict(list)
    for row in rows:
        if row in places:  # the whole name: nothing is nearer
            claims[row].append((float("inf"), True, row))
            continue
        parts = _parts(row, cut)
        depth, name = _nearest(parts, keys, ends)
        if depth:
            claims[name].append((depth, depth == min(len(parts), len(_parts(name, cut))), row))
    won = [(name, *best) for name, claimed in claims.items() if (best := _only(claimed))]
    deepest = max((depth for _, depth, _, _ in won), default=0)
    kept = {row: places[name] for name, depth, whole, row in won if depth > 1 or whole or deepest <= 1}
    return kept, deepest


def _parts(name: str, cut: Callable[[str], str]) -> Parts:
    *folders, file = name.split("/")
    return (cut(file), *(folder for folder in reversed(folders) if folder))


def _nearest(parts: Parts, keys: Sequence[Parts], ends: Sequence[tuple[Parts, str]]) -> tuple[int, str]:
    """How many parts are common with the name that has most of them, and that name; 0 for none, or for several."""
    at = bisect_left(keys, parts)  # in this order the nearest stand on either side, those that are as near beside them
    around = range(max(0, at - 2), min(len(keys), at + 2))
    found = sorted(((_common(parts, keys[i]), ends[i][1]) for i in around), reverse=True)
    if not found or (len(found) > 1 and found[0][0] == found[1][0]):
        return 0, ""
    return found[0]


def _common(one: Parts, other: Parts) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _only(claimed: Sequence[tuple[float, bool, str]]) -> tuple[float, bool, str] | None:
    """The nearest of the rows that are near to one file; None where two are as near."""
    best, *rest = sorted(claimed, reverse=True)
    return None if rest and rest[0][0] == best[0] else best


def _matched(by: str, pairs: Mapping[str, int], rows: Mapping[str, int], more: Mapping[str, Sequence[int]]) -> Matched:
    of = sorted((rows[name], place, tuple(more.get(name, ()))) for name, place in pairs.items())
    if crowded := next((name for name in pairs if len(more.get(name, ())) > _MOST), None):
        raise DataError(
            f"{len(more[crowded]) + 1} rows of the index have the name {crowded!r}, which tells nothing of them; give "
            "names of which each is of one input."
        )
    twins = {row: others for row, _, others in of if others}
    found = len(of) + sum(map(len, twins.values()))
    return Matched(tuple(row for row, _, _ in of), tuple(place for _, place, _ in of), by, twins, found)
