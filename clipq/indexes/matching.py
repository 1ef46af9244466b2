"""Which row of an index is of which picture or text."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..errors import DataError

_SHOWN = 2


@dataclass(frozen=True)
class Matched:
    """Pairs of a row of the index and a place in the data, in the order of the rows; `by` says how they were found."""

    rows: tuple[int, ...]
    places: tuple[int, ...]
    by: str

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, chosen: Iterable[int]) -> Matched:
        """Some of the pairs, by their number."""
        chosen = sorted(chosen)
        return Matched(tuple(self.rows[i] for i in chosen), tuple(self.places[i] for i in chosen), self.by)


def _file_name(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _stem(name: str) -> str:
    return _file_name(name).rpartition(".")[0] or _file_name(name)


def _below(names: Sequence[str]) -> Callable[[str], str]:
    """What is left of a path without the folder that all of `names` lie in."""
    shared = len(os.path.commonprefix(list(names)).rpartition("/")[0])
    return lambda name: name[shared:].lstrip("/") if shared else name


def match(index: Sequence[str], data: Sequence[str], texts: bool = False) -> Matched:
    """The rows named `index` that are inputs named `data`: by the whole name; of files else by the path below the
    folder that all rows lie in, by the file's name, or by that without its ending, the first that finds any.

    Of names that stand twice the first row is taken; of file names that stand twice none. Raises `DataError`, with
    some of both, if there is no pair.
    """
    ways = (("name", _same), ("path", _below(index)), ("file name", _file_name), ("file name without ending", _stem))
    for by, key in ways[:1] if texts else ways:
        keys = data if by in ("name", "path") else [key(name) for name in data]
        counts, once = Counter(keys), by in ("name", "path")
        places = {one: place for place, one in enumerate(keys) if once or counts[one] == 1}
        if pairs := _pairs(index, places, key, once):
            return Matched(tuple(row for row, _ in pairs), tuple(place for _, place in pairs), by)
    raise DataError(
        f"none of the {len(index)} names of the index is one of the {len(data)} of the data: the index has "
        f"{', '.join(map(repr, index[:_SHOWN]))}, the data {', '.join(map(repr, data[:_SHOWN]))}. Give the folder "
        "that the index was made of, or other names."
    )


def _same(name: str) -> str:
    return name


def _pairs(
    index: Sequence[str], places: dict[str, int], key: Callable[[str], str], once: bool
) -> list[tuple[int, int]]:
    rows: dict[str, int] = {}
    twice = set()
    for row, name in enumerate(index):
        one = key(name)
        if one in places and rows.setdefault(one, row) != row:
            twice.add(one)
    return [(row, places[one]) for one, row in rows.items() if once or one not in twice]
