"""Which inputs each step learns from: a function of seed and step alone, so that a resumed run sees the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..inputs.images import spread
from ..machine import cores
from ..work.processes import Processes
from .sources import Source

_READERS = 8
_HELD_OUT = 8  # one of so many inputs is held out, to see the drift on
_MOST_HELD_OUT = 64


@dataclass(frozen=True)
class Split:
    """The places of a source that are trained on, and those that are held out; a lone input is both."""

    training: tuple[int, ...]
    held_out: tuple[int, ...]

    @classmethod
    @lru_cache(maxsize=4)
    def of(cls, count: int) -> Split:
        held_out = tuple(spread(count, max(1, min(count // _HELD_OUT, _MOST_HELD_OUT))))
        apart = set(held_out)
        return cls(tuple(place for place in range(count) if place not in apart) or held_out, held_out)


@dataclass(frozen=True)
class Batches:
    """The batches of each step, for one of several processes. `size`: inputs of a tower, for each process.

    Two towers with equally many inputs get them in the same order, so that pairs stay together.
    """

    sources: Mapping[str, Source]
    size: int
    seed: int
    processes: Processes

    def held_out(self, tower: str) -> Tensor:
        """All that is held out, as it is."""
        source = self.sources[tower]
        return torch.cat(list(source.batches(Split.of(source.count).held_out)))

    @contextmanager
    def reading(self, first: int, end: int) -> Iterator[Iterator[dict[str, Tensor]]]:
        """The batches of steps `first` to `end` - 1; while one is learned from, the next one is read."""
        with ThreadPoolExecutor(min(_READERS, cores())) as readers:
            yield self._ahead(readers, first, end)
            readers.shutdown(cancel_futures=True)

    def _ahead(self, readers: ThreadPoolExecutor, first: int, end: int) -> Iterator[dict[str, Tensor]]:
        waiting = self._begin(readers, first) if first < end else {}
        for step in range(first, end):
            now, waiting = waiting, self._begin(readers, step + 1) if step + 1 < end else {}
            yield {tower: torch.stack([one.result() for one in parts]) for tower, parts in now.items()}

    def _begin(self, readers: ThreadPoolExecutor, step: int) -> dict[str, list[Future[Tensor]]]:
        start = (step * self.processes.count + self.processes.index) * self.size
        places = range(start, start + self.size)
        return {
            tower: [readers.submit(self._read, source, place) for place in places]
            for tower, source in self.sources.items()
        }

    def _read(self, source: Source, place: int) -> Tensor:
        training = Split.of(source.count).training
        turn, within = divmod(place, len(training))
        chosen = training[_order(self.seed, turn, len(training))[within]]
        return source.read(chosen, _chance(self.seed, "view", place))


@lru_cache(maxsize=4)
def _order(seed: int, turn: int, count: int) -> list[int]:
    return torch.randperm(count, generator=_chance(seed, "order", turn)).tolist()


def _chance(*what: object) -> torch.Generator:
    """A generator of its own for each thing that is drawn, whatever else was drawn before."""
    seed = int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(seed)
