"""A folder of pictures or a file of texts in, a matrix of embeddings out; a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .description import check_model, described_model, identity
from .errors import DataError, ResultError, SchemeError, unknown_name
from .inputs.folders import pictures
from .inputs.images import Entry, decode, is_image, unlike_a_file
from .machine import cores
from .matrices import Embeddings, described_vectors, read_ranges, save_embeddings
from .vectors.codes import DTYPES, KINDS, quantize
from .vectors.defaults import default_ranges
from .vectors.ranges import Ranges
from .version import VERSION
from .work.processes import launched
from .work.shards import Shard
from .work.work import Work, working

if TYPE_CHECKING:
    import torch

    from .models import Model

__all__ = ["Embeddings", "Inputs", "embed", "save_embeddings"]

_BATCHES_PER_SHARD = 8
_READ_AHEAD = 8


@dataclass(frozen=True)
class Inputs:
    """What is to be embedded, listed and not yet read: names in order, and the pictures or the lines behind them."""

    source: Path
    tower: str
    names: tuple[str, ...]
    digest: str
    entries: tuple[Entry, ...] = ()  # pictures; without any, the names are the texts

    @classmethod
    def of(cls, source: str | os.PathLike[str]) -> Inputs:
        """The pictures of a folder, or the lines of a file. Raises `DataError` if there is nothing to embed."""
        source = Path(source)
        if source.is_dir():
            images = pictures(source)
            return cls(source, "image", tuple(entry.key for entry in images.entries), images.digest(), images.entries)
        lines = _lines(source)
        return cls(source, "text", lines, hashlib.sha256(json.dumps(lines).encode()).hexdigest())


@dataclass(frozen=True)
class Items:
    """The inputs for one model: how one is read (an `Unreadable` says why it cannot be), how a batch is embedded."""

    inputs: Inputs
    read: Callable[[int], object]
    encode: Callable[[list[Any]], torch.Tensor]


class Unreadable(str):
    """Why an input has no embedding."""


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

    source: the folder or the file, or `Inputs.of` it (which lists it, before a model is loaded).
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
    items = _items(model, inputs, normalize)
    processes = launched(model.device.type)
    frozen = _ranges(model, inputs.tower, normalize, dtype, ranges) if processes.is_main else None
    with working(resume, processes, progress) as work:
        key = {**identity(model, batch_size), "data": inputs.digest, "tower": inputs.tower, "normalize": normalize}
        own = work.within({**key, "orientation": "exif"})
        shards = _shards(inputs, items, batch_size, own)
    if not processes.is_main:
        return None
    about = {"tower": inputs.tower, "normalized": normalize, "clipq_version": VERSION, **described_model(model)}
    return replace(_joined(inputs, shards, about, dtype, frozen), kept=own.folder)


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


def _items(model: Model, inputs: Inputs, normalize: bool) -> Items:
    if inputs.tower not in model.towers:
        raise DataError(
            f"this model has no {inputs.tower} tower, so it cannot embed {inputs.source}; "
            f"it has: {', '.join(model.towers)}."
        )
    if inputs.tower == "image":
        return Items(inputs, _picture_reader(model, inputs.entries), _image_encoder(model, normalize))
    return Items(inputs, _line_reader(inputs.names), lambda texts: model.encode_text(texts, normalize=normalize))


def _lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file, as they stand; a final line break ends the last line and begins no other."""
    if not os.path.lexists(path):
        raise DataError(f"{path} does not exist; give a folder of pictures, or a text file with one text a line.")
    if reason := unlike_a_file(path):
        raise DataError(f"{path} is {reason}; give a folder of pictures, or a text file with one text a line.")
    if is_image(path):
        raise DataError(f"{path} is a picture; give the folder that holds the pictures, or a text file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a UTF-8 text file ({error}); give a text file, or a folder of pictures."
        ) from error
    lines = tuple(line.rstrip("\r") for line in text.removesuffix("\n").split("\n"))
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} holds no text; give one text a line.")
    return lines


def _line_reader(lines: Sequence[str]) -> Callable[[int], str]:
    return lambda row: lines[row] if lines[row].strip() else Unreadable("an empty line")


def _picture_reader(model: Model, entries: Sequence[Entry]) -> Callable[[int], object]:
    def read(row: int) -> object:
        try:
            return model.preprocess(decode(entries[row], oriented=True))
        except Exception as error:  # whatever a decoder does with hostile bytes, it means that this picture is broken
            return Unreadable(f"{type(error).__name__}: {error}")

    return read


def _image_encoder(model: Model, normalize: bool) -> Callable[[list[Any]], torch.Tensor]:
    import torch

    return lambda batch: model.encode_image(torch.stack(batch).to(model.device), normalize=normalize)


def _shards(inputs: Inputs, items: Items, batch_size: int, work: Work) -> list[Shard]:
    import torch

    size = batch_size * _BATCHES_PER_SHARD
    with ThreadPoolExecutor(min(_READ_AHEAD, cores())) as readers, torch.inference_mode():
        return work.shards(
            f"{inputs.tower}s", len(inputs.names), size, lambda rows: _shard(items, rows, batch_size, readers)
        )


def _shard(items: Items, rows: range, batch_size: int, readers: ThreadPoolExecutor) -> Shard:
    """Embed some rows. Only what can be read fills the batches, so they are the same in every run."""
    import torch

    inputs = dict(zip(rows, readers.map(items.read, rows), strict=True))
    broken = {row: str(one) for row, one in inputs.items() if isinstance(one, Unreadable)}
    good = [row for row in rows if row not in broken]
    batches = [good[i : i + batch_size] for i in range(0, len(good), batch_size)]
    parts = [items.encode([inputs[row] for row in batch]).float().cpu() for batch in batches]
    matrix = torch.cat(parts) if parts else torch.empty(0, 0)
    return Shard(rows.start, torch.tensor(good, dtype=torch.int64), matrix, broken)


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
