"""All searches of a report: queries of the old and the new model, in indexes of either and of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..retrieval.search import Blocks, in_blocks, nearest, replaced
from .comparing import Cell, Extra, Search, compared, own_cosines


@dataclass(frozen=True)
class Sides:
    """The same inputs as the old and the new model embed them: float32 [n, D] of one width, and their rows of the whole
    index, int64 [n]. `index` gives all its rows in blocks, `total` of them; both models have all where `is_whole`.
    """

    old: Tensor
    new: Tensor
    rows: Tensor
    index: Callable[[], Blocks]
    total: int
    aligned: bool = False
    own: Tensor | None = None
    """int64 [n, m]: all rows of the index that are of each input, which it is not to find; None for `rows`."""

    @property
    def left_out(self) -> Tensor:
        return self.rows if self.own is None else self.own

    @property
    def is_whole(self) -> bool:
        return len(self.rows) == self.total

    def mixed(self) -> tuple[Tensor, Tensor]:
        """[n, D] with half of the rows, drawn at random, of the new model, and which these are."""
        order = torch.randperm(len(self.new), generator=torch.Generator().manual_seed(0))
        which = order[: (len(self.new) + 1) // 2].sort().values
        both = torch.nn.functional.normalize(self.old.float(), dim=1)
        both[which] = torch.nn.functional.normalize(self.new.float(), dim=1)[which]
        return both, which


def in_whole_index(sides: Sides, of: str) -> Iterator[Cell]:
    """NEW queries on all of the OLD index, against OLD queries on it; both in one pass over it."""
    count = len(sides.rows)
    both = nearest(torch.cat([sides.old, sides.new]), sides.index(), torch.cat([sides.left_out, sides.left_out]))
    truth, found = both.part(slice(0, count)), both.part(slice(count, None))
    reference = Search("old", "old", "index", of)
    yield compared(
        Search("new", "old", "index", of, sides.aligned),
        reference,
        found,
        truth,
        sides.total,
        Extra(own=own_cosines(sides.new, sides.old)),
    )
    if not sides.is_whole:
        index = replaced(sides.index(), sides.rows, sides.new)
        ranked = nearest(sides.new, index, sides.left_out)
        part = Extra(new_rows=sides.rows)
        yield compared(
            Search("new", "partly new", "index", of, sides.aligned), reference, ranked, truth, sides.total, part
        )


def in_sample(sides: Sides, of: str) -> Iterator[Cell]:
    """The same rows by either model and by both, each searched with queries of either model."""
    mixed, which = sides.mixed()
    indexes = {"old": sides.old, "new": sides.new, "mixed": mixed}
    queries = {"old": sides.old, "new": sides.new}
    own = torch.arange(len(sides.rows))
    truth, reference = nearest(sides.old, in_blocks(sides.old), own), Search("old", "old", "sample", of)
    for index, rows in indexes.items():
        for asked, matrix in queries.items():
            if asked == index == "old" or (sides.is_whole and (asked, index) == ("new", "old")):
                continue
            extra = Extra(
                own=own_cosines(matrix, rows) if asked != index and index != "mixed" else None,
                new_rows=which if index == "mixed" else None,
            )
            found = nearest(matrix, in_blocks(rows), own)
            yield compared(Search(asked, index, "sample", of, sides.aligned), reference, found, truth, len(rows), extra)


@dataclass(frozen=True)
class Asked:
    """Texts as queries: by the new model before any map, as they are used now (with a map, mapped), and, where somebody
    has them, by the old model.
    """

    plain: Tensor
    used: Tensor
    old: Tensor | None = None


def of_texts(sides: Sides, pictures: Tensor, asked: Asked) -> Iterator[Cell]:
    """Text queries on pictures. pictures: [n, in] as the new model embeds them, before any map.

    The reference is the new model's texts on its own pictures, which is what embedding all of them again would give;
    and, where the old model's texts are known, these on the whole OLD index.
    """
    truth, reference = nearest(asked.plain, in_blocks(pictures)), Search("new", "new", "sample", "text")
    mixed, which = sides.mixed()
    for index, rows in (("old", sides.old), ("mixed", mixed), *((("new", sides.new),) if sides.aligned else ())):
        extra = Extra(new_rows=which) if index == "mixed" else None
        found = nearest(asked.used, in_blocks(rows))
        search = Search("new", index, "sample", "text", sides.aligned)
        yield compared(search, reference, found, truth, len(rows), extra)
    if asked.old is not None:
        both = nearest(torch.cat([asked.old, asked.used]), sides.index())
        count = len(asked.old)
        yield compared(
            Search("new", "old", "index", "text", sides.aligned),
            Search("old", "old", "index", "text"),
            both.part(slice(count, None)),
            both.part(slice(0, count)),
            sides.total,
        )
