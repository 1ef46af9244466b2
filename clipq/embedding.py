"""A folder of pictures or a file of texts in, a matrix of embeddings out; a killed run goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .description import check_model, described_model, identity
from .errors import DataError, ResultError, SchemeError, unknown_name
from .inputs.images import decode
from .inputs.listing import Inputs
from .inputs.scaling import smallest_of
from .matrices import Embeddings, described_vectors, read_ranges, save_embeddings
from .vectors.codes import DTYPES, KINDS, quantize
from .vectors.defaults import default_ranges
from .vectors.ranges import Ranges
from .version import VERSION
from .work.batches import Batches, Unreadable, readers
from .work.processes import launched
from .work.shards import Shard
from .work.spent import Spent
from .work.work import working

if TYPE_CHECKING:
    import torch

    from .models import Model

__all__ = ["Embeddings", "Inputs", "embed", "save_embeddings"]

_BATCHES_PER_SHARD = 8


def embed(
    model: Model,
    source: str | os.PathLike[str] | Inputs,
    *,
    batch_size: int = 32,
    normalize: bool = True,
    resume: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    dtype: str = "float32",
    ranges: Ranges | str | os.PathLike[str] | None = None,
) -> Embeddings | None:
    """Embed every picture below a folder (sorted by path, names relative to it), or every line of a UTF-8 text file.

    source: the folder or the file, or `Inputs.of` it (which lists it, before a model is loaded, and says how JPEGs are
    decoded).
    resume: a folder for finished shards; the same call after a kill goes on there and gives the same numbers.
    progress: a bar on stderr; `None` shows it on a terminal, and elsewhere a line now and then.
    dtype: of `vectors.DTYPES`; what the vectors are kept as. Shards are float32: a killed run may go on with another.
    ranges: what int8 and bits are measured by, never this source: `Ranges`, or an earlier file of the same model (a
    float32 file's rows); `None` takes clipq's own photos and everyday words, see `vectors.default_ranges`.

    Pictures are turned the way up that their EXIF orientation says. Inputs that cannot be read (broken pictures, empty
    lines) have no row and are listed in `broken`. Under `accelerate launch` the processes share the work; the main one
    returns the result, the others `None`.
    Raises `DataError` if there is nothing to embed, no tower for it or ranges of another model, `SchemeError` for
    ranges of a dtype that has none, `ResultError` if an embedding is not finite, `OutputError` if a shard cannot be
    written (those before it are kept).
    """
    inputs = source if isinstance(source, Inputs) else Inputs.of(source)
    check_model(model, needs_text=inputs.tower == "text")
    _check_tower(model, inputs)
    processes = launched(model.device.type)
    frozen = _ranges(model, inputs.tower, normalize, dtype, ranges) if processes.is_main else None
    with working(resume, processes, progress) as work:
        own = work.within(_identity(model, inputs, batch_size, normalize))
        batches = _batches(model, inputs, batch_size, normalize, work.spent)
        shards = own.streamed(f"{inputs.tower}s", len(inputs.names), batch_size * _BATCHES_PER_SHARD, batches.shards)
    if not processes.is_main:
        return None
    return replace(_joined(inputs, shards, _about(model, inputs, normalize), dtype, frozen), kept=own.folder)


def _identity(model: Model, inputs: Inputs, batch_size: int, normalize: bool) -> dict[str, Any]:
    """What rows depend on: those of an earlier run are taken only if all of it is the same."""
    key = {**identity(model, batch_size), "data": inputs.digest, "tower": inputs.tower, "normalize": normalize}
    return {**key, "orientation": "exif", "decode": inputs.decode}


def _about(model: Model, inputs: Inputs, normalize: bool) -> dict[str, Any]:
    about = {"tower": inputs.tower, "normalized": normalize, "clipq_version": VERSION, **described_model(model)}
    return {**about, "decode": inputs.decode} if inputs.entries else about


def _ranges(
    model: Model, tower: str, normalize: bool, dtype: str, given: Ranges | str | os.PathLike[str] | None
) -> Ranges | None:
    """The frozen ranges, found and checked before the work; `None` for a dtype that has none."""
    if dtype not in KINDS:
        raise unknown_name("dtype", dtype, DTYPES)
    if not KINDS[dtype].ranged:
        if given is not None:
            raise SchemeError(f"{dtype} vectors have no ranges; leave ranges out, or choose int8 or ubinary.")
        return None
    if given is None:
        return default_ranges(model, tower, normalize)
    ranges = given if isinstance(given, Ranges) else read_ranges(given)
    ranges.check_for({"fingerprint": model.fingerprint(), "tower": tower, "normalized": normalize})
    return ranges


def _check_tower(model: Model, inputs: Inputs) -> None:
    if inputs.tower not in model.towers:
        raise DataError(
            f"this model has no {inputs.tower} tower, so it cannot embed {inputs.source}; "
            f"it has: {', '.join(model.towers)}."
        )


def _batches(model: Model, inputs: Inputs, batch_size: int, normalize: bool, spent: Spent) -> Batches:
    if inputs.tower == "image":
        read, encode = _picture_reader(model, inputs, spent), _image_encoder(model, normalize)
        return Batches(read, encode, batch_size, readers(), spent)
    return Batches(_line_reader(inputs.names), lambda texts: model.encode_text(texts, normalize), batch_size, 0, spent)


def _line_reader(lines: Sequence[str]) -> Callable[[int], str]:
    return lambda row: lines[row] if lines[row].strip() else Unreadable("an empty line")


def _picture_reader(model: Model, inputs: Inputs, spent: Spent) -> Callable[[int], object]:
    smallest, preprocess = smallest_of(model.preprocessing, inputs.decode), model.preprocess

    def read(row: int) -> object:
        try:
            with spent.on("decode"):
                picture = decode(inputs.entries[row], oriented=True, smallest=smallest)
            with spent.on("preprocess"):
                return preprocess(picture)
        except Exception as error:  # whatever a decoder does with hostile bytes, it means that this picture is broken
            return Unreadable(f"{type(error).__name__}: {error}")

    return read


def _image_encoder(model: Model, normalize: bool) -> Callable[[list[Any]], torch.Tensor]:
    import torch

    return lambda batch: model.encode_image(torch.stack(batch).to(model.device), normalize=normalize)


def _joined(
    inputs: Inputs, shards: list[Shard], about: dict[str, Any], dtype: str, ranges: Ranges | None
) -> Embeddings:
    """One matrix of all shards, which are taken from the list: of codes, float32 is in memory only once."""
    import torch

    names, parts, saturated, width, broken = [], [], 0, 0, {}
    while shards:
        shard = shards.pop(0)
        broken |= {inputs.names[row].strip() or f"line {row + 1}": why for row, why in shard.broken.items()}
        if len(shard.indices):
            own = [inputs.names[row] for row in shard.indices.tolist()]
            _check_finite(shard.embeddings, own)
            codes, outside = quantize(shard.embeddings, dtype, ranges)
            width, saturated = shard.embeddings.shape[1], saturated + outside
            names.extend(own)
            parts.append(codes)
    if not parts:
        name, reason = next(iter(broken.items()))
        raise DataError(f"none of the {len(inputs.names)} inputs can be read; the first: {name}: {reason}")
    about = {**about, **described_vectors(dtype, width, saturated, ranges)}
    return Embeddings(tuple(names), torch.cat(parts), broken, about, ranges=ranges)


def _check_finite(matrix: torch.Tensor, names: Sequence[str]) -> None:
    bad = (~matrix.isfinite().all(dim=-1)).nonzero().flatten().tolist()
    if bad:
        raise ResultError(f"the embedding of {names[bad[0]]!r} is not finite ({len(bad)} such); try fallback='fp32'.")
