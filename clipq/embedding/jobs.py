"""An embedding job: numbered shards of listed inputs, and who makes them.

The protocol of engines: a job is cut into units, ranges of rows; a unit is one shard of the output. An `Engine` is
given the units that are missing and gives the entry of each when its file is there, in any order. A unit is always
encoded in the same batches (`Job.made`), and its file is written whole or not at all, so it does not matter who makes
it, where, how often, or after how many kills: the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import SpaceError
from ..inputs.listing import Inputs
from ..matrices.folders import ShardedFolder, write_shard
from ..vectors.ranges import Ranges
from ..work.processes import Processes
from ..work.spent import Spent
from ..work.work import Work, cut
from .rows import BATCHES_PER_SHARD, joined

if TYPE_CHECKING:
    from .embedder import Embedder

Advance = Callable[[int], None]
"""Told of rows that are done."""


@dataclass(frozen=True)
class Job:
    """What makes shards of inputs. It pickles (an `Embedder` of a model's name does), and needs no inputs of its own.

    folder: where the shards are made, the same for all workers: on several machines, a folder that they share.
    about: what each shard says of the model and its rows. ranges: of codes. first, begin: how many shards, of how many
    inputs, there are already that these follow.
    """

    embedder: Embedder
    into: ShardedFolder
    folder: Path
    about: Mapping[str, Any]
    ranges: Ranges | None = None
    first: int = 0
    begin: int = 0

    def made(self, inputs: Inputs, units: Sequence[range], work: Work, advance: Advance) -> Iterator[dict[str, Any]]:
        """Write the shard of each of `units`, one after the other; given is what `write_shard` says of each.

        Of one unit only its own rows are ever in one batch, in batches of `embedder.batch_size` that can be read.
        work: keeps pieces of a shard until it is written, if it has a folder; its `spent` is told where time goes.
        Raises `SpaceError` where the model of this process is another than the one that the job was begun with.
        """
        _check_space(self, inputs.tower)
        title, size = f"{inputs.tower}s", self.embedder.batch_size * BATCHES_PER_SHARD
        batches = self.embedder.batches(inputs, work.spent)
        pieces = work.each(title, (one for unit in units for one in cut(unit, size)), batches.shards, advance)
        none = partial(self.embedder.nothing, inputs.tower)
        with closing(pieces):
            for unit in units:
                own = cut(unit, size)
                shards = list(islice(pieces, len(own)))
                found = joined(inputs, shards, dict(self.about), self.embedder.dtype, self.ranges, none)
                yield write_shard(found, self.path(unit), self.begin + unit.start)
                work.forget(title, own)

    def path(self, unit: range) -> Path:
        """Where the shard of a unit is written."""
        return self.folder / self.into.shard(self.first + unit.start // self.into.size)

    def with_threads(self, threads: int | None) -> Job:
        """The job for workers of so many threads each; None: as many as they find."""
        return replace(self, embedder=replace(self.embedder, threads=threads))


@dataclass(frozen=True)
class Made:
    """What a worker elsewhere says of a unit that it made; all of it is JSON.

    entry: what `write_shard` said. seconds, rows: of `Spent`.
    """

    entry: dict[str, Any]
    seconds: dict[str, float]
    rows: int

    def taken(self, unit: range, work: Work, advance: Advance) -> dict[str, Any]:
        """The entry, with the time and the rows told to those who show them."""
        work.spent.include(self.seconds, self.rows)
        advance(len(unit))
        return self.entry


def make(job: Job, inputs: Inputs, unit: range) -> Made:
    """In a worker of an engine: write the shard of one unit. inputs: all, or `inputs.part(unit)`."""
    spent = Spent()
    work = Work(None, Processes(), lambda title, total: lambda rows: None, spent=spent)
    (entry,) = job.made(inputs, [unit], work, lambda rows: None)
    return Made(entry, spent.seconds, spent.rows)


def _check_space(job: Job, tower: str) -> None:
    """A worker loads the model by its name, and under that name may lie another file by now, or on its machine."""
    found, asked = job.embedder.space_id(tower), job.about["space_id"]
    if found != asked:
        raise SpaceError(
            f"{job.embedder.model} embeds into the space {found} in this worker, and the job was begun in {asked}: its "
            "file was replaced, or is another on that machine. Give every machine the same file, and the command again."
        )


class Engine(Protocol):
    """Who makes the shards of a job."""

    def made(
        self, job: Job, inputs: Inputs, units: Sequence[range], work: Work, advance: Advance
    ) -> Iterator[dict[str, Any]]:
        """The entries of the shards of `units`, in any order, each as soon as its file is there.

        Workers elsewhere call `make(job, inputs.part(unit), unit)`, and this process `Made.taken` for each of them.
        A unit whose worker dies is given to another; raises `EngineError` where that does not help.
        """
        ...


class InThisProcess:
    """The engine that needs no other: one shard after the other, in pieces that survive a kill."""

    def made(
        self, job: Job, inputs: Inputs, units: Sequence[range], work: Work, advance: Advance
    ) -> Iterator[dict[str, Any]]:
        return job.made(inputs, units, work, advance)
