"""A folder of pictures or a file of texts in, a matrix of embeddings out; a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .description import check_model, described_model, identity
from .errors import DataError, ResultError
from .inputs.folders import pictures
from .inputs.images import Entry, decode, is_image
from .machine import cores
from .resources import atomic_path
from .version import VERSION
from .work.processes import launched
from .work.work import Shard, Work, working

if TYPE_CHECKING:
    import torch

    from .models import Model

FORMATS = (".safetensors", ".npy")
_BATCHES_PER_SHARD = 8
_MAX_HEADER = 90_000_000  # bytes of names; a safetensors header ends at 100 MB
_READ_AHEAD = 8


@dataclass(frozen=True)
class Items:
    """What is to be embedded: names in order, and how one batch of inputs is read (a string says why it cannot be)."""

    tower: str
    names: tuple[str, ...]
    digest: str
    read: Callable[[int], object]
    encode: Callable[[list[Any]], torch.Tensor]


@dataclass(frozen=True)
class Embeddings:
    """`matrix` [n, D] float32, the `names` of its rows, the `broken` inputs that have none with the reason, and `about`
    the model.
    """

    names: tuple[str, ...]
    matrix: torch.Tensor
    broken: dict[str, str]
    about: dict[str, Any]


class Unreadable(str):
    """Why an input has no embedding."""


def embed(
    model: Model,
    source: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    normalize: bool = True,
    resume: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Embeddings | None:
    """Embed every picture below a folder (sorted by path, names relative to it), or every line of a UTF-8 text file.

    resume: a folder for finished shards; the same call after a kill goes on there and gives the same numbers.
    progress: a bar on stderr; `None` shows it on a terminal.

    Inputs that cannot be read (broken pictures, empty lines) have no row and are listed in `broken`. Under
    `accelerate launch` the processes share the work; the main one returns the result, the others `None`.
    Raises `DataError` if there is nothing to embed or no tower for it, `ResultError` if an embedding is not finite.
    """
    check_input(Path(source))
    check_model(model, needs_text=Path(source).is_file())
    items = _items(model, Path(source), normalize)
    processes = launched(model.device.type)
    with working(resume, processes, progress) as work:
        key = {**identity(model, batch_size), "data": items.digest, "tower": items.tower, "normalize": normalize}
        shards = _shards(items, batch_size, work.within(key))
    return _joined(model, items, shards, normalize) if processes.is_main else None


def save_embeddings(found: Embeddings, path: str | os.PathLike[str]) -> None:
    """Write a `.safetensors` file (tensor "embeddings"; names and the rest in its metadata, as JSON under "clipq"), or

    a `.npy` file with `FILE.names.txt` (a name a line) and `FILE.json` (the rest) beside it.
    Raises `DataError` for another ending, or names that the format cannot hold.
    """
    path = Path(path)
    check_output(path, found.names)
    rest = {"format": 1, **found.about, "broken": found.broken}
    if path.suffix == ".safetensors":
        _save_safetensors(found, rest, path)
    else:
        _save_npy(found, rest, path)


def check_input(source: Path) -> None:
    """Raise `DataError` for an input that does not exist."""
    if not source.exists():
        raise DataError(f"{source} does not exist; give a folder of pictures, or a text file with one text a line.")


def check_output(path: Path, names: Sequence[str] = ()) -> None:
    """Raise `DataError` if `save_embeddings` would: better before the work than after it."""
    if path.suffix not in FORMATS:
        raise DataError(f"cannot write {path}: the ending says the format; allowed: {', '.join(FORMATS)}.")
    if path.suffix == ".npy" and any("\n" in name for name in names):
        raise DataError("a name holds a line break, which a list of names cannot keep; write .safetensors instead.")
    if path.suffix == ".safetensors" and len(json.dumps(names)) > _MAX_HEADER:
        raise DataError(f"{len(names)} names are too long for the header of a .safetensors file; write .npy instead.")


def _save_safetensors(found: Embeddings, rest: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    metadata = {"clipq": json.dumps({**rest, "names": found.names})}
    with atomic_path(path) as temporary:
        save_file({"embeddings": found.matrix.contiguous()}, temporary, metadata=metadata)


def _save_npy(found: Embeddings, rest: dict[str, Any], path: Path) -> None:
    import numpy

    with atomic_path(f"{path}.names.txt") as temporary:
        temporary.write_text("".join(f"{name}\n" for name in found.names), encoding="utf-8", errors="surrogateescape")
    with atomic_path(f"{path}.json") as temporary:
        temporary.write_text(json.dumps(rest, indent=1) + "\n", encoding="utf-8")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        numpy.save(file, found.matrix.numpy(), allow_pickle=False)


def _items(model: Model, source: Path, normalize: bool) -> Items:
    """The pictures of a folder, or the lines of a file."""
    tower = "image" if source.is_dir() else "text"
    if tower not in model.towers:
        raise DataError(
            f"this model has no {tower} tower, so it cannot embed {source}; it has: {', '.join(model.towers)}."
        )
    if tower == "image":
        images = pictures(source)
        names = tuple(entry.key for entry in images.entries)
        return Items(
            tower, names, images.digest(), _picture_reader(model, images.entries), _image_encoder(model, normalize)
        )
    lines = _lines(source)
    digest = hashlib.sha256(json.dumps(lines).encode()).hexdigest()
    return Items(tower, lines, digest, _line_reader(lines), lambda texts: model.encode_text(texts, normalize=normalize))


def _lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file, as they stand; a final line break ends the last line and begins no other."""
    if is_image(path):
        raise DataError(f"{path} is a picture; give the folder that holds the pictures, or a text file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
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
            return model.preprocess(decode(entries[row]))
        except Exception as error:  # whatever a decoder does with hostile bytes, it means that this picture is broken
            return Unreadable(f"{type(error).__name__}: {error}")

    return read


def _image_encoder(model: Model, normalize: bool) -> Callable[[list[Any]], torch.Tensor]:
    import torch

    return lambda batch: model.encode_image(torch.stack(batch).to(model.device), normalize=normalize)


def _shards(items: Items, batch_size: int, work: Work) -> list[Shard]:
    import torch

    size = batch_size * _BATCHES_PER_SHARD
    with ThreadPoolExecutor(min(_READ_AHEAD, cores())) as readers, torch.inference_mode():
        return work.shards(
            f"{items.tower}s", len(items.names), size, lambda rows: _shard(items, rows, batch_size, readers)
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


def _joined(model: Model, items: Items, shards: Sequence[Shard], normalize: bool) -> Embeddings:
    import torch

    broken = {
        items.names[row].strip() or f"line {row + 1}": reason
        for shard in shards
        for row, reason in shard.broken.items()
    }
    full = [shard for shard in shards if len(shard.indices)]
    if not full:
        name, reason = next(iter(broken.items()))
        raise DataError(f"none of the {len(items.names)} inputs can be read; the first: {name}: {reason}")
    names = tuple(items.names[row] for shard in full for row in shard.indices.tolist())
    matrix = torch.cat([shard.embeddings for shard in full])
    bad = (~matrix.isfinite().all(dim=-1)).nonzero().flatten().tolist()
    if bad:
        raise ResultError(f"the embedding of {names[bad[0]]!r} is not finite ({len(bad)} such); try another fallback.")
    about = {"tower": items.tower, "normalized": normalize, "clipq_version": VERSION, **described_model(model)}
    return Embeddings(names, matrix, broken, about)
