"""`drift`: embed a sample again, compare it with what stands in the index, and say what to do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..alignment.aligning import fitted
from ..alignment.maps import Map
from ..alignment.methods import check_method
from ..alignment.pairs import Pairs, opened, paired, sampled
from ..description import check_model, described_environment, described_model
from ..errors import DataError
from ..indexes import Index, Layout, Matched, match
from ..inputs.listing import Inputs
from ..models import Model
from ..retrieval.search import gathered
from ..version import VERSION
from ..work.processes import launched
from .comparing import Cell, own_cosines
from .defaults import SAMPLE
from .reports import Drift, cosine_percentiles
from .searching import Asked, Sides, in_sample, in_whole_index, of_texts
from .spaces import differences

_LEAST = 20
_TEXTS = 2000
_SAME = 0.999  # median cosine of a model with itself, whatever kernels and batches it runs in


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
    Raises `DataError` for an index that cannot be read, that has too few names in common with `data`, or that says that
    it is of the model's own space and has other vectors.
    """
    begun, method = time.perf_counter(), _method(align)
    inputs = data if isinstance(data, Inputs) else Inputs.of(data)
    check_model(model, needs_text=inputs.tower == "text" or texts is not None)
    index = opened(old, layout)
    next(index.blocks())  # what is wrong with all of it shows at once
    said, queries = differences(index, model, inputs), _queries(texts, old_texts, inputs.tower, index)
    chosen, others = sampled(index, inputs, (sample, 2 * sample if method else 0))
    _check_count(len(chosen), inputs, {})
    pairs = paired(model, index, inputs, chosen)
    _check_count(len(pairs), inputs, pairs.broken)
    if said == [] and index.exact:
        _check_same(index, pairs)
    asked = None if queries is None else Texts(model.encode_text(queries.texts).float().cpu(), queries.old)
    found = _map(model, index, inputs, others, method)
    both = Sample(index, inputs.tower, pairs, asked)
    return Drift(
        old=index.described(),
        new={**described_model(model), "width": pairs.new.shape[1]},
        data=_described_data(inputs, chosen, pairs, asked),
        cosines=both.cosines(found),
        cells=tuple(both.cells(found)),
        texts=both.text_cosines(found),
        map=found,
        differences=None if said is None else tuple(said),
        run=_described_run(model, begun),
    )


def _method(align: bool | str) -> str | None:
    return check_method("best" if align is True else align) if align else None


def _check_count(count: int, inputs: Inputs, broken: Mapping[str, str]) -> None:
    why = "".join(f"; {len(broken)} could not be read, as {name}: {reason}" for name, reason in [*broken.items()][:1])
    if count < _LEAST:
        raise DataError(f"only {count} inputs can be compared, of {len(inputs.names)}{why}; give {_LEAST} or more.")


def _check_same(index: Index, pairs: Pairs) -> None:
    """Raise `DataError` where the index says that it is of this very space and the vectors say that it is not."""
    middle = float(own_cosines(pairs.new, pairs.old).median())
    if middle < _SAME:
        raise DataError(
            f"{index.path} says that it is of the model's own space, but its vectors have a median cosine of "
            f"{middle:.4f} with those of the inputs of the same names: the names do not lead to what it was made of. "
            "Give the very data, and names, that it was made of."
        )


def _described_data(inputs: Inputs, chosen: Matched, pairs: Pairs, asked: Texts | None) -> dict[str, Any]:
    return {
        "source": str(inputs.source),
        "tower": inputs.tower,
        "inputs": len(inputs.names),
        "ranked_by": "cosine",
        "matched": chosen.found,
        "matched_by": chosen.by,
        "sample": len(pairs),
        "texts": len(asked.new) if asked else 0,
        "broken": dict(pairs.broken),
    }


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


@dataclass(frozen=True)
class Queries:
    """Texts to be asked, each once, and float32 [n, D] of the old model, where these are known."""

    texts: list[str]
    old: Tensor | None = None


def _queries(texts: Any, old_texts: Any, tower: str, index: Index) -> Queries | None:
    """Listed, and checked, before anything is embedded."""
    if texts is None:
        if old_texts is not None:
            raise DataError("old_texts are embeddings of text queries; give the texts themselves as well: texts=FILE.")
        return None
    inputs = texts if isinstance(texts, Inputs) else Inputs.of(texts)
    if inputs.tower != "text" or tower != "image":
        raise DataError(f"{inputs.source}: text queries are a file of texts, for an index of pictures.")
    rows = range(inputs.first, inputs.first + len(inputs.names))
    listed = dict.fromkeys(text for row in rows if (text := inputs.text(row)) and text.strip())
    if not listed:
        raise DataError(f"{inputs.source} holds no text to ask with.")
    return Queries(list(islice(listed, _TEXTS))) if old_texts is None else _told(list(listed), old_texts, index)


def _told(texts: list[str], old_texts: Any, index: Index) -> Queries:
    """The texts that `old_texts` has vectors of, which are named by the texts themselves."""
    there = opened(old_texts)
    if there.width != index.width or not there.exact:
        kind = f"of width {there.width}" + ("" if there.exact else ", and codes")
        raise DataError(
            f"{there.path}: the old model's embeddings of text queries are {kind}, and the index is of width "
            f"{index.width}; give the floats that the index was searched with."
        )
    found = match(there.names, texts, texts=True)
    found = found.some(range(min(len(found), _TEXTS)))
    return Queries([texts[place] for place in found.places], gathered(there.blocks(), torch.tensor(found.rows)))


def _map(model: Model, index: Index, inputs: Inputs, others: Matched, method: str | None) -> Map | None:
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
            pairs, aligned = self.pairs, when == "after"
            sides = Sides(pairs.old, new, pairs.rows, self.index.blocks, len(self.index), aligned, pairs.own)
            yield from in_whole_index(sides, self.tower)
            yield from in_sample(sides, self.tower)
            if self.texts is not None:
                asked = Asked(self.texts.new, _mapped(self.texts.new, _other(way)), self.texts.old)
                yield from of_texts(sides, self.pairs.new, asked)


def _other(way: Map | None) -> Map | None:
    return None if way is None else way.of_other_tower()


def _mapped(rows: Tensor, way: Map | None) -> Tensor:
    return rows if way is None else way(rows)
