"""A folder of pictures or a file of texts in, a folder of numbered shards out; memory for one shard at any number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..description import check_model
from ..errors import EngineError
from ..inputs.listing import Inputs
from ..matrices.broken import save_broken
from ..matrices.embeddings import described_vectors
from ..matrices.files import read_file
from ..matrices.folders import ShardedFolder, finish, finished_shard, put_in_place, said_of_shards
from ..vectors.ranges import Ranges
from ..work.processes import launched
from ..work.spent import Spent
from ..work.work import Work, cut, remove_kept, working
from .embedder import Embedder
from .jobs import Engine, InThisProcess, Job
from .rows import check_tower, described_rows, frozen_ranges, none_read, row_identity

if TYPE_CHECKING:
    from ..models import Model

_AGAIN = "What is finished is kept: give the same command again."


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
    shards; the main one writes the manifest, the others return `None`. Inputs without a row stand in `broken.parquet`.
    `embed_with` does the same by other engines.
    Raises what `embed` does, `DataError` for a width of shards below 1, `OutputError` if the folder cannot be made.
    """
    embedder = Embedder(model, batch_size=batch_size, normalize=normalize, dtype=dtype)
    return embed_with(InThisProcess(), embedder, source, into, progress=progress, ranges=ranges)


def embed_with(
    engine: Engine,
    embedder: Embedder,
    source: str | os.PathLike[str] | Inputs,
    into: ShardedFolder,
    *,
    progress: bool | None = None,
    ranges: Ranges | str | os.PathLike[str] | None = None,
    spent: Spent | None = None,
) -> dict[str, Any] | None:
    """As `embed_into`, by an engine of `clipq.engines`; with the same embedder, each writes the same bytes.

    embedder: its batch_size, normalize and dtype hold; ranges: of its codes. spent: is told where the time went.
    """
    into.check(force=True)
    inputs = source if isinstance(source, Inputs) else Inputs.of(source, embedder.decode)
    model = embedder.whole
    check_model(model, needs_text=inputs.tower == "text")
    check_tower(model, inputs.tower, inputs.source)
    processes = launched(model.device.type)
    frozen = frozen_ranges(model, inputs.tower, embedder.normalize, embedder.dtype, ranges or embedder.ranges)
    encoding = embedder.described(inputs.tower)
    about = {**described_rows(model, inputs, embedder.normalize), **encoding}
    key = {**row_identity(model, inputs, embedder.batch_size, embedder.normalize), **encoding}
    key |= {"shard_size": into.size, "shards": into.format, "dtype": embedder.dtype}
    key |= {"ranges": None if frozen is None else frozen.described()}
    with working(into.unfinished, processes, progress, spent) as work:
        own = work.within(key)
        job = Job(embedder, into, own.folder / "shards", about, frozen)
        entries = sorted(processes.gathered(list(entries_of(engine, job, inputs, own))), key=lambda one: one["start"])
    return _finished(job, inputs, entries) if processes.is_main else None


def entries_of(engine: Engine, job: Job, inputs: Inputs, work: Work) -> Iterator[dict[str, Any]]:
    """Of this process's shards; those that stand finished are not made again."""
    units = work.processes.mine(cut(range(len(inputs.names)), job.into.size))
    advance, missing, said = work.begin(f"{inputs.tower}s", sum(map(len, units))), [], said_of_shards(job.folder)
    for unit in units:
        if (entry := finished_shard(job.path(unit), said)) is None:
            missing.append(unit)
        else:
            advance(len(unit))
            yield entry
    if missing:
        yield from _all_made(job, missing, engine.made(job, inputs, missing, work, advance))


def _all_made(job: Job, units: Sequence[range], made: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What an engine says of `units`. Raises `EngineError` unless it is each of them, once, and the files are there."""
    asked = {job.path(unit).name: unit for unit in units}
    left = dict(asked)
    for entry in made:
        if left.pop(entry["file"], None) is None:
            raise EngineError(f"the engine made {entry['file']} twice, or unasked. {_AGAIN}")
        yield entry
    for name, unit in asked.items():
        if name in left or not (job.folder / name).is_file():
            unseen = f"it is not in {job.folder}: do all workers see it?"
            reason = "the engine did not make it" if name in left else unseen
            raise EngineError(f"{name}, of inputs {unit.start + 1} to {unit.stop}, is missing: {reason}. {_AGAIN}")


def _finished(job: Job, inputs: Inputs, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the manifest and put the folder in its place. Raises `DataError` if no input could be read."""
    folder = job.folder
    if not any(entry["rows"] for entry in entries):
        raise none_read(inputs, read_file(folder / entries[0]["file"]).broken)
    vectors = described_vectors(job.embedder.dtype, entries[0]["width"], 0, job.ranges)
    whole = finish(folder, {**job.about, **vectors, "shard_size": job.into.size}, entries)
    save_broken(folder)
    put_in_place(folder, job.into.path)
    remove_kept(folder.parent)
    return whole
