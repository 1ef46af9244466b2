"""What whole matrices and shards of one are both made of: how inputs are read and encoded, and what is said of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..description import described_model, identity
from ..errors import ClipqError, DataError, ResultError, SchemeError
from ..inputs.images import decode
from ..inputs.listing import Inputs
from ..inputs.places import NOBODYS_FAULT
from ..inputs.scaling import smallest_of
from ..matrices.embeddings import Embeddings, described_vectors
from ..matrices.reading import read_ranges
from ..vectors.codes import kind_named, quantize
from ..vectors.defaults import default_ranges
from ..vectors.ranges import Ranges
from ..version import VERSION
from ..work.batches import Batches, Unreadable, readers
from ..work.shards import Shard
from ..work.spent import Spent

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ..models import Model
    from ..work.work import Work
    from .loaded import Lean

BATCHES_PER_SHARD = 8  # that a killed run loses at most


def row_identity(model: Model, inputs: Inputs, batch_size: int, normalize: bool) -> dict[str, Any]:
    """What rows depend on: those of an earlier run are taken only if all of it is the same."""
    space = model.space(inputs.tower, inputs.decode, normalize).id
    return {**identity(model, batch_size), "data": inputs.digest, "space": space, "orientation": "exif"}


def described_rows(model: Model, inputs: Inputs, normalize: bool) -> dict[str, Any]:
    about = {"tower": inputs.tower, "normalized": normalize, "clipq_version": VERSION, **described_model(model)}
    about |= model.space(inputs.tower, inputs.decode, normalize).described()
    return {**about, "decode": inputs.decode} if inputs.tower == "image" else about


def frozen_ranges(
    model: Model, tower: str, normalize: bool, dtype: str, given: Ranges | str | os.PathLike[str] | None
) -> Ranges | None:
    """The frozen ranges, found and checked before the work; `None` for a dtype that has none."""
    if not kind_named(dtype).ranged:
        if given is not None:
            raise SchemeError(f"{dtype} vectors have no ranges; leave ranges out, or choose int8 or ubinary.")
        return None
    if given is None:
        return default_ranges(model, tower, normalize)
    ranges = given if isinstance(given, Ranges) else read_ranges(given)
    ranges.check_for({"fingerprint": model.fingerprint(), "tower": tower, "normalized": normalize})
    return ranges


def check_tower(model: Model | Lean, tower: str, source: object) -> None:
    """Raise `DataError` if the model has no such tower."""
    if tower not in model.towers:
        raise DataError(
            f"this model has no {tower} tower, so it cannot embed {source}; it has: {', '.join(model.towers)}."
        )


def batches_of(
    model: Model | Lean, inputs: Inputs, batch_size: int, normalize: bool, spent: Spent, threads: int | None = None
) -> Batches:
    """threads: that read pictures beside the tower; None: `readers()`."""
    if inputs.tower == "image":
        smallest = smallest_of(model.preprocessing, inputs.decode)
        read = picture_reader(lambda row: decode(inputs.entry(row), oriented=True, smallest=smallest), model, spent)
        return picture_batches(model, read, batch_size, normalize, spent, threads)
    return text_batches(model, inputs.text, batch_size, normalize, spent)


def encoded(
    model: Model, inputs: Inputs, batch_size: int, normalize: bool, work: Work
) -> tuple[list[Shard], Path | None]:
    """All rows in shards, and the folder that keeps them, if one does: those of an earlier run are taken from there."""
    own = work.within(row_identity(model, inputs, batch_size, normalize))
    batches = batches_of(model, inputs, batch_size, normalize, work.spent)
    rows, size = len(inputs.names), batch_size * BATCHES_PER_SHARD
    return own.streamed(f"{inputs.tower}s", rows, size, batches.shards), own.folder


def picture_batches(
    model: Model | Lean,
    read: Callable[[int], object],
    batch_size: int,
    normalize: bool,
    spent: Spent,
    threads: int | None = None,
) -> Batches:
    """read: of `picture_reader`."""
    ahead = readers() if threads is None else min(readers(), threads)
    return Batches(read, _image_encoder(model, normalize), batch_size, ahead, spent)


def text_batches(
    model: Model | Lean, text: Callable[[int], str | None], batch_size: int, normalize: bool, spent: Spent
) -> Batches:
    """text: of a row; what is none, or is blank, is unreadable."""
    return Batches(_line_reader(text), lambda some: model.encode_text(some, normalize), batch_size, 0, spent)


def _line_reader(text: Callable[[int], str | None]) -> Callable[[int], str]:
    def read(row: int) -> str:
        line = text(row)
        if line is None:
            return Unreadable("an empty row: it holds no text")
        if not isinstance(line, str):
            return Unreadable(f"no text, but {type(line).__name__}")
        if not line.strip():
            return Unreadable("an empty line")
        return line if _is_unicode(line) else Unreadable("text that is not Unicode (a lone surrogate)")

    return read


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def picture_reader(open: Callable[[int], Any], model: Model | Lean, spent: Spent) -> Callable[[int], object]:
    """A row's pixels, by what opens its picture; `Unreadable` where that, or the preprocessing, raises.

    What no picture is to blame for is raised: a file of many that cannot be read, a missing package, too little memory.
    """
    preprocess = model.preprocess

    def read(row: int) -> object:
        try:
            with spent.on("decode"):
                picture = open(row)
            with spent.on("preprocess"):
                return preprocess(picture)
        except NOBODYS_FAULT:
            raise
        except Exception as error:  # whatever a decoder does with hostile bytes, it means that this picture is broken
            return Unreadable(str(error) if isinstance(error, ClipqError) else f"{type(error).__name__}: {error}")

    return read


def _image_encoder(model: Model | Lean, normalize: bool) -> Callable[[list[Any]], torch.Tensor]:
    import torch

    return lambda batch: model.encode_image(torch.stack(batch).to(model.device), normalize=normalize)


def joined(
    inputs: Inputs,
    shards: list[Shard],
    about: dict[str, Any],
    dtype: str,
    ranges: Ranges | None,
    none: Callable[[], torch.Tensor] | None = None,
) -> Embeddings:
    """One matrix of all shards, which are taken from the list: of codes, float32 is in memory only once.

    none: gives the [0, width] of shards without any row; without it there have to be some (`DataError`).
    """
    import torch

    names, parts, saturated, broken = [], [], 0, {}
    while shards:
        shard = shards.pop(0)
        broken |= {inputs.label(row): why for row, why in shard.broken.items()}
        if len(shard.indices):
            own = [inputs.name(row) for row in shard.indices.tolist()]
            _check_finite(shard.embeddings, own)
            codes, outside = quantize(shard.embeddings, dtype, ranges)
            width, saturated = shard.embeddings.shape[1], saturated + outside
            names.extend(own)
            parts.append(codes)
    if not parts and none is None:
        raise none_read(inputs, broken)
    if not parts:
        empty = none()
        width, parts = empty.shape[1], [quantize(empty, dtype, ranges)[0]]
    about = {**about, **described_vectors(dtype, width, saturated, ranges)}
    return Embeddings(tuple(names), torch.cat(parts), broken, about, ranges=ranges)


def none_read(inputs: Inputs, broken: Mapping[str, str]) -> DataError:
    """The error for inputs of which there is no row. broken: the first of them, or more, with the reasons."""
    name, reason = next(iter(broken.items()))
    return DataError(f"none of the {len(inputs.names)} inputs can be read; the first: {name}: {reason}")


def finite(found: Shard) -> Shard:
    """With rows that are not finite among the broken ones."""
    good = found.embeddings.isfinite().all(dim=-1)
    if good.all():
        return found
    reason = "the embedding is not finite; try fallback='fp32'"
    broken = {**found.broken, **dict.fromkeys(found.indices[~good].tolist(), reason)}
    return replace(found, indices=found.indices[good], embeddings=found.embeddings[good], broken=broken)


def _check_finite(matrix: torch.Tensor, names: Sequence[str]) -> None:
    bad = (~matrix.isfinite().all(dim=-1)).nonzero().flatten().tolist()
    if bad:
        raise ResultError(f"the embedding of {names[bad[0]]!r} is not finite ({len(bad)} such); try fallback='fp32'.")
