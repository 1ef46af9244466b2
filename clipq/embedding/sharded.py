"""A folder of pictures or a file of texts in, a folder of numbered shards out; memory for one shard at any number."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..description import check_model
from ..errors import DataError
from ..inputs.listing import Inputs
from ..matrices.embeddings import described_vectors
from ..matrices.files import read_file
from ..matrices.folders import ShardedFolder, finish, finished_shard, put_in_place, write_shard
from ..vectors.ranges import Ranges
from ..work.processes import launched
from ..work.work import Do, Work, cut, working
from .rows import BATCHES_PER_SHARD, batches_of, check_tower, described_rows, frozen_ranges, joined, row_identity

if TYPE_CHECKING:
    import torch

    from ..models import Model


def embed_into(
    model: Model,
    source: str | os.PathLike[str] | Inputs,
    into: ShardedFolder,
    *,
    batch_size: int = 32,
    normalize: bool = True,
    progress: bool | None = None,
    dtype: str = "float32",
    ranges: Ranges | str | os.PathLike[str] | None = None,
) -> dict[str, Any] | None:
    """Embed as `embed` does, into a folder of shards of `into.size` inputs each; returns what its manifest says.

    What is finished stands in `into.unfinished`, and the same call after a kill goes on there and writes the same
    bytes; the folder itself is there when all of it is. Besides a shard only the list of the inputs is in memory. A
    folder of shards that stands there already is replaced at the end. Under `accelerate launch` the processes share the
    shards; the main one writes the manifest, the others return `None`.
    Raises what `embed` does, `DataError` for a width of shards below 1, `OutputError` if the folder cannot be made.
    """
    into.check(force=True)
    inputs = source if isinstance(source, Inputs) else Inputs.of(source)
    check_model(model, needs_text=inputs.tower == "text")
    check_tower(model, inputs)
    processes = launched(model.device.type)
    frozen = frozen_ranges(model, inputs.tower, normalize, dtype, ranges)
    about = described_rows(model, inputs, normalize)
    key = {**row_identity(model, inputs, batch_size, normalize), "shard_size": into.size, "shards": into.format}
    key |= {"dtype": dtype, "ranges": None if frozen is None else frozen.described()}
    with working(into.unfinished, processes, progress) as work:
        own = work.within(key)
        batches = batches_of(model, inputs, batch_size, normalize, work.spent)
        made = Shards(inputs, into, own.folder / "shards", about, dtype, frozen)
        entries = list(
            made.written(own, batches.shards, batch_size * BATCHES_PER_SHARD, lambda: none_of(model, inputs))
        )
        entries = sorted(processes.gathered(entries), key=lambda entry: entry["start"])
    return made.finished(entries) if processes.is_main else None


def none_of(model: Model, inputs: Inputs) -> torch.Tensor:
    """[0, width]"""
    return (model.encode_image if inputs.tower == "image" else model.encode_text)([])


@dataclass(frozen=True)
class Shards:
    """The shards of one folder, in the making in `folder`.

    first, begin: how many shards, of how many inputs, there are already that these follow.
    """

    inputs: Inputs
    into: ShardedFolder
    folder: Path
    about: dict[str, Any]
    dtype: str
    ranges: Ranges | None
    first: int = 0
    begin: int = 0

    def written(self, work: Work, do: Do, size: int, none: Callable[[], torch.Tensor]) -> Iterator[dict[str, Any]]:
        """Make this process's shards, each of them of pieces of `size` inputs, which are kept until it is written."""
        title = f"{self.inputs.tower}s"
        parts = work.processes.mine(cut(range(len(self.inputs.names)), self.into.size))
        advance = work.begin(title, sum(map(len, parts)))
        finished = {part.start: finished_shard(self._path(part)) for part in parts}
        missing = [part for part in parts if finished[part.start] is None]
        pieces = work.each(title, (one for part in missing for one in cut(part, size)), do, advance)
        with closing(pieces):
            for part in parts:
                if (entry := finished[part.start]) is not None:
                    advance(len(part))
                    yield entry
                    continue
                own = cut(part, size)
                found = joined(self.inputs, list(islice(pieces, len(own))), self.about, self.dtype, self.ranges, none)
                yield write_shard(found, self._path(part), self.begin + part.start)
                work.forget(title, own)

    def _path(self, part: range) -> Path:
        return self.folder / self.into.shard(self.first + part.start // self.into.size)

    def finished(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Write the manifest and put the folder in its place. Raises `DataError` if no input could be read."""
        if not any(entry["rows"] for entry in entries):
            name, reason = next(iter(read_file(self.folder / entries[0]["file"]).broken.items()))
            raise DataError(f"none of the {len(self.inputs.names)} inputs can be read; the first: {name}: {reason}")
        vectors = described_vectors(self.dtype, entries[0]["width"], 0, self.ranges)
        whole = finish(self.folder, {**self.about, **vectors, "shard_size": self.into.size}, entries)
        put_in_place(self.folder, self.into.path)
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        with suppress(OSError):  # not empty: a run with other arguments, which nobody has finished yet
            self.folder.parent.parent.rmdir()
        return whole
