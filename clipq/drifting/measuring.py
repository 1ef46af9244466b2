"""`drift`: embed a sample again, compare it with what stands in the index, and say what to do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..alignment.aligning import fitted
from ..alignment.maps import Map
from ..alignment.pairs import Pairs, opened, paired, sampled
from ..description import check_model, described_environment, described_model
from ..errors import DataError
from ..indexes import Index, Layout, match
from ..inputs.listing import Inputs
from ..models import Model
from ..retrieval.search import gathered
from ..version import VERSION
from ..work.processes import launched
from .comparing import Cell, own_cosines
from .reports import Drift, cosine_percentiles
from .searching import Asked, Sides, in_sample, in_whole_index, of_texts
from .spaces import differences

SAMPLE = 2000
"""Inputs that are embedded again and searched with; twice as many more fit a map, where one is asked for."""
_LEAST = 20
_TEXTS = 2000


def drift(
    old: str | os.PathLike[str] | Index,
    model: Model,
    data: str | os.PathLike[str] | Inputs,
    *,
    texts: str | os.PathLike[str] | Inputs | None = None,
    old_texts: str | os.PathLike[str] | Index | None = None,
    sample: int = SAMPLE,
    align: bool | str = False,
    layout: Layout | None = None,
) -> Drift:
    """Whether `model` can be used with the index `old`, which another model made of `data`.

    old: a file or folder that `clipq embed` wrote, a matrix or table with names, or a faiss or usearch index that gives
    its vectors back (`indexes.open_index`; `layout` says what a file does not say itself). Nothing is written to it,
    and it is read in blocks.
    data: the pictures, or the file of texts, that it was made of. texts: a file of text queries, if it is of pictures;
    old_texts: the old model's embeddings of these, as `old` may be.
    sample: how many of the inputs are embedded again, chosen at random (the same ones every time).
    align: also fit a map on twice as many others, "orthogonal", "ridge" or the best of all (True), and compare with it.
    Where there are too few inputs for both, a third of them is compared and two thirds fit the map.
    Raises `DataError` for an index that cannot be read, or that has no names in common with `data`.
    """
    begun = time.perf_counter()
    inputs = data if isinstance(data, Inputs) else Inputs.of(data)
    check_model(model, needs_text=inputs.tower == "text" or texts is not None)
    index = opened(old, layout)
    said = differences(index, model, inputs)
    chosen, others = sampled(index, inputs, (sample, 2 * sample if align else 0))
    if len(chosen) < _LEAST:
        raise DataError(f"only {len(chosen)} inputs can be compared, of {len(inputs.names)}; give {_LEAST} or more.")
    pairs = paired(model, index, inputs, chosen)
    asked = _asked(model, texts, old_texts, inputs.tower)
    found = _map(model, index, inputs, others, "best" if align is True else align)
    both = Sample(index, inputs.tower, pairs, asked)
    about = {"source": str(inputs.source), "tower": inputs.tower, "inputs": len(inputs.names), "matched_by": chosen.by}
    counts = {"sample": len(pairs), "texts": len(asked.new) if asked else 0, "broken": dict(pairs.broken)}
    return Drift(
        old=index.described(),
        new={**described_model(model), "width": pairs.new.shape[1]},
        data={**about, **counts},
        cosines=both.cosines(found),
        cells=tuple(both.cells(found)),
        texts=both.text_cosines(found),
        map=found,
        differences=None if said is None else tuple(said),
        run=_described_run(model, begun),
    )


def _described_run(model: Model, begun: float) -> dict[str, Any]:
    return {
        "clipq_version": VERSION,
        "environment": described_environment(launched(model.device.type)),
        "seconds": round(time.perf_counter() - begun, 1),
    }


@dataclass(frozen=True)
class Texts:
    """Text queries, float32 [n, D]: `new` not normalized; `old` of the same texts, where they are known."""

    new: Tensor
    old: Tensor | None


def _asked(model: Model, texts: Any, old_texts: Any, tower: str) -> Texts | None:
    if texts is None:
        if old_texts is not None:
            raise DataError("old_texts are embeddings of text queries; give the texts themselves as well: texts=FILE.")
        return None
    inputs = texts if isinstance(texts, Inputs) else Inputs.of(texts)
    if inputs.tower != "text" or tower != "image":
        raise DataError(f"{inputs.source}: text queries are a file of texts, for an index of pictures.")
    if old_texts is None:
        names = [name for name in dict.fromkeys(inputs.names) if name.strip()][:_TEXTS]
        return Texts(model.encode_text(names).float().cpu(), None)
    index = opened(old_texts)
    found = match(index.names, inputs.names, texts=True)
    found = found.some(range(min(len(found), _TEXTS)))
    old = gathered(index.blocks(), torch.tensor(found.rows))
    return Texts(model.encode_text([inputs.names[place] for place in found.places]).float().cpu(), old)


def _map(model: Model, index: Index, inputs: Inputs, others: Any, method: bool | str) -> Map | None:
    """Fitted on pairs that are not compared."""
    if not method:
        return None
    pairs = paired(model, index, inputs, others)
    return fitted(model, inputs.tower, pairs.new, pairs.old, method)


@dataclass(frozen=True)
class Sample:
    """Inputs as both models embed them, and text queries: what all numbers of a report are made of."""

    index: Index
    tower: str
    pairs: Pairs
    texts: Texts | None

    def _ways(self, found: Map | None) -> Iterator[tuple[str, Map | None]]:
        """Without a map, where the widths allow it, and with it, where it is another than none."""
        if self.pairs.new.shape[1] == self.index.width:
            yield "before", None
        if found is not None and not found.is_identity:
            yield "after", found

    def cosines(self, found: Map | None) -> dict[str, Any]:
        return {
            when: cosine_percentiles(own_cosines(_mapped(self.pairs.new, way), self.pairs.old))
            for when, way in self._ways(found)
        }

    def text_cosines(self, found: Map | None) -> dict[str, Any]:
        if self.texts is None or self.texts.old is None:
            return {}
        return {
            when: cosine_percentiles(own_cosines(_mapped(self.texts.new, _other(way)), self.texts.old))
            for when, way in self._ways(found)
        }

    def cells(self, found: Map | None) -> Iterator[Cell]:
        for when, way in self._ways(found):
            new = _mapped(self.pairs.new, way)
            sides = Sides(self.pairs.old, new, self.pairs.rows, self.index.blocks, len(self.index), when == "after")
            yield from in_whole_index(sides, self.tower)
            yield from in_sample(sides, self.tower)
            if self.texts is not None:
                asked = Asked(self.texts.new, _mapped(self.texts.new, _other(way)), self.texts.old)
                yield from of_texts(sides, self.pairs.new, asked)


def _other(way: Map | None) -> Map | None:
    return None if way is None else way.of_other_tower()


def _mapped(rows: Tensor, way: Map | None) -> Tensor:
    return rows if way is None else way(rows)
