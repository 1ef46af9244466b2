"""Long work in shards: dealt out to processes, kept in a folder as it is done, taken up again after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..resources import atomic_path
from .processes import Processes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Shard:
    """Embeddings of the rows `indices` of a longer list; `broken` are the rows that could not be read, with reasons."""

    start: int
    indices: torch.Tensor  # [k] int64
    embeddings: torch.Tensor  # [k, D] float32
    broken: dict[int, str] = field(default_factory=dict)
    resumed: bool = False


@dataclass(frozen=True)
class Work:
    """Where shards are kept (`None`: nowhere), who does them, and who is told how many rows are done."""

    folder: Path | None
    processes: Processes
    begin: Callable[[str, int], Callable[[int], None]]

    def shards(self, title: str, total: int, size: int, do: Callable[[range], Shard]) -> list[Shard]:
        """All shards of `range(total)`, in order, in every process; only missing ones are done.

        Shards depend on `size` alone, never on the number of processes: one process and four do the same batches.
        """
        starts = self.processes.mine(range(0, total, size))
        ranges = [range(start, min(start + size, total)) for start in starts]
        advance = self.begin(title, sum(map(len, ranges)))
        done = []
        for rows in ranges:
            done.append(self._shard(title, rows, do))
            advance(len(rows))
        return sorted(self.processes.gathered(done), key=lambda shard: shard.start)

    def _shard(self, title: str, rows: range, do: Callable[[range], Shard]) -> Shard:
        if self.folder is None:
            return do(rows)
        path = self.folder / f"{title}-{rows.start:08d}.safetensors"
        if (kept := _read(path, rows.start)) is not None:
            return kept
        shard = do(rows)
        _write(path, shard)
        return shard

    def within(self, identity: dict) -> Work:
        """The same work in a subfolder that only work with the same `identity` shares."""
        if self.folder is None:
            return self
        text = json.dumps(identity, sort_keys=True, indent=1)
        folder = self.folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        with atomic_path(folder / "identity.json") as temporary:
            temporary.write_text(text, encoding="utf-8")
        return replace(self, folder=folder)


def _read(path: Path, start: int) -> Shard | None:
    """A kept shard; `None` if there is none or it cannot be read (then it is simply done again)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            broken = json.loads((file.metadata() or {})["broken"])
            tensors = file.get_tensor("indices"), file.get_tensor("embeddings")
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return Shard(start, *tensors, {int(row): reason for row, reason in broken.items()}, resumed=True)


def _write(path: Path, shard: Shard) -> None:
    from safetensors.torch import save_file

    tensors = {"indices": shard.indices.contiguous(), "embeddings": shard.embeddings.contiguous()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"broken": json.dumps(shard.broken)})


@contextmanager
def working(folder: str | os.PathLike[str] | None, processes: Processes, progress: bool | None) -> Iterator[Work]:
    """Work with a progress bar on the main process's stderr: if `progress`, or if it is `None` and that a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = processes.is_main and (sys.stderr.isatty() if progress is None else progress)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:

        def begin(title: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(title, total=total)
            return lambda rows: bar.advance(task, rows)

        yield Work(Path(folder) if folder is not None else None, processes, begin)
