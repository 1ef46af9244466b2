"""Long work in shards: dealt out to processes, kept in a folder as it is done, taken up again after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, tee
from pathlib import Path

from ..errors import ClipqWarning
from ..resources import output_path
from .processes import Processes
from .progress import Begin, progress_of
from .shards import DamagedShard, Shard, read_shard, write_shard
from .spent import Spent

Do = Callable[[Iterable[range]], Iterable[Shard]]
_KEPT = "What was finished is kept; make room, and give the same command again to go on."


@dataclass(frozen=True)
class Work:
    """Where shards are kept (`None`: nowhere), who does them, and who is told how many rows are done.

    key: the identity of the work that the folder is for, see `within`. spent: where its time goes, which `begin` shows.
    """

    folder: Path | None
    processes: Processes
    begin: Begin
    key: str = ""
    spent: Spent = field(default_factory=Spent)

    def shards(self, title: str, total: int, size: int, do: Callable[[range], Shard]) -> list[Shard]:
        """All shards of `range(total)`, in order, in every process; only missing and damaged ones are done.

        As `streamed`, where nothing is gained by knowing the next range while one is done.
        """
        return self.streamed(title, total, size, partial(map, do))

    def streamed(self, title: str, total: int, size: int, do: Do) -> list[Shard]:
        """All shards of `range(total)`, in order, in every process; `do` is given the ranges of those that are missing
        or damaged, one by one as it asks for them, and gives their shards in order.

        Shards depend on `size` alone, never on the number of processes: one process and four do the same batches.
        A damaged one is a `ClipqWarning`; one that cannot be written is an `OutputError`, and those before it stay.
        """
        ranges = self.processes.mine(cut(range(total), size))
        advance = self.begin(title, sum(map(len, ranges)))
        done = list(self.each(title, ranges, do, advance))
        if _widths(done) > 1:  # a kept shard is sealed, and still it is of something else
            self._warn("shards of several widths are kept")
            done = [self._written(title, shard) for shard in do(ranges)]
        return sorted(self.processes.gathered(done), key=lambda shard: shard.start)

    def each(self, title: str, ranges: Iterable[range], do: Do, advance: Callable[[int], None]) -> Iterator[Shard]:
        """The shards of `ranges`, one after the other, as `streamed` does them; none is held here once it is given."""
        kept: dict[int, Shard] = {}
        left, asked = tee(ranges)

        def missing() -> Iterator[range]:
            for rows in asked:
                if (shard := self._kept(title, rows)) is None:
                    yield rows
                else:
                    kept[rows.start] = shard

        with closing(_generator(do(missing()))) as fresh:
            for shard in chain(fresh, (None,)):  # None: the kept ones after the last that was done
                for rows in left:
                    new = shard is not None and rows.start == shard.start
                    found = self._written(title, shard) if new else kept.pop(rows.start)
                    advance(len(rows))
                    yield found
                    if new:
                        break

    def forget(self, title: str, ranges: Iterable[range]) -> None:
        """Remove the kept shards of `ranges`, which are of no more use."""
        for rows in ranges:
            if (path := self._path(title, rows)) is not None:
                path.unlink(missing_ok=True)

    def _kept(self, title: str, rows: range) -> Shard | None:
        """A shard of an earlier run; `None` if there is none, or if it is not what it should be."""
        path = self._path(title, rows)
        if path is None or not path.is_file():
            return None
        try:
            return read_shard(path, rows, self.key)
        except DamagedShard as damage:
            self._warn(f"the kept shard {path.name} is damaged: {damage}")
            return None

    def _written(self, title: str, shard: Shard) -> Shard:
        rows = range(shard.start, shard.start + len(shard.indices) + len(shard.broken))
        if (path := self._path(title, rows)) is not None:
            write_shard(path, shard, self.key, _KEPT)
        return shard

    def _path(self, title: str, rows: range) -> Path | None:
        return None if self.folder is None else self.folder / f"{title}-{rows.start:08d}.safetensors"

    def _warn(self, what: str) -> None:
        warnings.warn(f"{what}; it is done again", ClipqWarning, stacklevel=4)

    def within(self, identity: dict) -> Work:
        """The same work in a subfolder that only work with the same `identity` shares."""
        if self.folder is None:
            return self
        text = json.dumps(identity, sort_keys=True, indent=1)
        key = hashlib.sha256(text.encode()).hexdigest()
        folder = self.folder / key[:16]
        with output_path(folder / "identity.json", _KEPT) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return replace(self, folder=folder, key=key)


def _generator(shards: Iterable[Shard]) -> Iterator[Shard]:
    """With a `close`, which ends what reads ahead for it."""
    yield from shards


def _widths(shards: Sequence[Shard]) -> int:
    return len({shard.embeddings.shape[-1] for shard in shards if len(shard.indices)})


def cut(rows: range, size: int) -> list[range]:
    """`rows` in ranges of `size`; the last one may be shorter."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def remove_kept(folder: Path | None) -> None:
    """Remove what a run kept in its own folder; what one with other arguments keeps beside it, unfinished, stays."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # not empty
            folder.parent.rmdir()


@contextmanager
def working(
    folder: str | os.PathLike[str] | None, processes: Processes, progress: bool | None, spent: Spent | None = None
) -> Iterator[Work]:
    """Work whose progress the main process shows on stderr, see `progress_of`. spent: is told where its time goes."""
    spent = spent or Spent()
    with progress_of(processes.is_main, progress, spent) as begin:
        yield Work(Path(folder) if folder is not None else None, processes, begin, spent=spent)
