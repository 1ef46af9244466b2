"""Rows read ahead in threads and encoded in batches, as shards: what decodes and what computes go side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import tee
from typing import TYPE_CHECKING, Any

from ..machine import cores
from .ahead import ahead
from .shards import Shard
from .spent import Spent

if TYPE_CHECKING:
    import torch


_MOST_READERS = 8


def readers() -> int:
    """How many threads decode pictures beside a tower: one a core, and no more than keep any tower busy."""
    return min(_MOST_READERS, cores())


class Unreadable(str):
    """Why a row has no embedding."""


@dataclass(frozen=True)
class Batches:
    """How one row is read (an `Unreadable` says why it cannot be; whatever is raised ends the work), and how the rows
    of a batch, at most `size` of them, are encoded: [n, D].

    threads: that read beside the one that encodes. A tower's threads and these share the cores: the system gives a
    core to whoever has work, so neither side is told to wait for the other, and the queue between them, of two batches
    at most, is what balances them. Where the tower is the slower one the queue is full, readers sleep and it has all
    cores; where reading is, the tower sleeps and readers have them.
    """

    read: Callable[[int], Any]
    encode: Callable[[list[Any]], torch.Tensor]
    size: int
    threads: int
    spent: Spent

    def shards(self, ranges: Iterable[range]) -> Iterator[Shard]:
        """A shard of each of `ranges`, in order. Those after it are read while one is encoded."""
        ranges, those_read = tee(ranges)
        rows = (row for one in those_read for row in one)
        with ahead(self.read, rows, self.threads, 2 * self.size) as read:
            for one in ranges:
                yield self._shard(one, read)

    def _shard(self, rows: range, read: Iterator[Future[Any]]) -> Shard:
        """Encode some rows. Only what can be read fills the batches, so they are the same in every run."""
        import torch

        good, broken, batch, parts = [], {}, [], []
        for row in rows:
            with self.spent.on("wait"):
                one = next(read).result()
            if isinstance(one, Unreadable):
                broken[row] = str(one)
            else:
                good.append(row)
                batch.append(one)
            if len(batch) == self.size or (batch and row == rows[-1]):
                parts.append(self._encoded(batch))
                batch = []
        matrix = torch.cat(parts) if parts else torch.empty(0, 0)
        return Shard(rows.start, torch.tensor(good, dtype=torch.int64), matrix, broken)

    def _encoded(self, batch: list[Any]) -> torch.Tensor:
        import torch

        with self.spent.on("encode"), torch.inference_mode():
            found = self.encode(batch).float().cpu()
        self.spent.done(len(batch))
        return found
