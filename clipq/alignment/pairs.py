"""Pairs of embeddings of the same inputs: the rows of an index, and what another model makes of them now."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..embedding.whole import embed
from ..errors import DataError
from ..indexes import Index, Layout, Matched, match, open_index
from ..inputs.images import Images
from ..inputs.listing import Inputs
from ..models import Model
from ..retrieval.search import gathered


@dataclass(frozen=True)
class Pairs:
    """`new` float32 [n, in], not normalized, and `old` float32 [n, out] of the same inputs; `rows` int64 [n] of the
    index, in order. `broken`: inputs that could not be read, with the reason. `twins`: int64 [n, m], further rows of
    the index that are of the same input, -1 for none.
    """

    new: Tensor
    old: Tensor
    rows: Tensor
    broken: Mapping[str, str]
    twins: Tensor | None = None

    @property
    def own(self) -> Tensor:
        """int64 [n, 1 + m]: all rows of the index that are of each input."""
        return self.rows[:, None] if self.twins is None else torch.cat([self.rows[:, None], self.twins], dim=1)

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, chosen: Tensor) -> Pairs:
        twins = None if self.twins is None else self.twins[chosen]
        return Pairs(self.new[chosen], self.old[chosen], self.rows[chosen], self.broken, twins)


def opened(old: str | os.PathLike[str] | Index, layout: Layout | None = None) -> Index:
    return old if isinstance(old, Index) else open_index(old, layout)


def sampled(index: Index, inputs: Inputs, sizes: Sequence[int], seed: int = 0) -> list[Matched]:
    """Disjoint random samples of the rows of `index` that are among `inputs`.

    sizes: how many of each, in the order of their importance; where there are too few for all, each gets its share.
    Raises `DataError` if there is none at all, or the index says that it is of another tower.
    """
    tower = index.about.get("tower", inputs.tower)
    if tower != inputs.tower:
        raise DataError(f"{index.path} is of {tower}s, and {inputs.source} has {inputs.tower}s; give what it is of.")
    found = match(index.names, inputs.names, texts=inputs.tower == "text")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed)).tolist()
    if (wanted := sum(sizes)) > len(order):
        sizes = [size * len(order) // wanted for size in sizes]
    parts, start = [], 0
    for size in sizes:
        parts.append(found.some(order[start : start + size]))
        start += size
    return parts


def paired(model: Model, index: Index, inputs: Inputs, chosen: Matched, progress: bool | None = None) -> Pairs:
    """Embed the inputs of `chosen` and read their rows of the index; memory for these alone."""
    found = embed(model, subset(inputs, chosen.places), normalize=False, progress=progress)
    if found is None:
        raise DataError("run this in one process, not under `accelerate launch`: a sample is quickly embedded.")
    rows = {inputs.names[place]: row for row, place in zip(chosen.rows, chosen.places, strict=True)}
    kept = torch.tensor([rows[name] for name in found.names], dtype=torch.int64)
    return Pairs(found.matrix, gathered(index.blocks(), kept), kept, found.broken, _twins(chosen, kept.tolist()))


def _twins(chosen: Matched, rows: Sequence[int]) -> Tensor | None:
    """int64 [n, m], -1 where a row has fewer than the most; None if none has any."""
    if not chosen.twins:
        return None
    most = max(map(len, chosen.twins.values()))
    own = [chosen.twins.get(row, ()) for row in rows]
    return torch.tensor([[*others, *[-1] * (most - len(others))] for others in own], dtype=torch.int64)


def subset(inputs: Inputs, places: Sequence[int]) -> Inputs:
    """Some of the inputs, in order."""
    names = tuple(inputs.names[place] for place in places)
    if not inputs.entries:
        return replace(inputs, names=names, digest=hashlib.sha256(json.dumps(names).encode()).hexdigest())
    entries = tuple(inputs.entries[place] for place in places)
    return replace(inputs, names=names, entries=entries, digest=Images(entries, str(inputs.source)).digest())
