"""Where the time of a long call goes, by what it went into."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

MADE = ("decode", "preprocess")
"""What the threads that work ahead do: seconds of a processor, of all of these threads together."""
TAKEN = ("encode", "wait")
"""What the thread does that takes what they made: seconds of the clock."""


@dataclass
class Spent:
    """Seconds by what they went into, and how many rows were done; any thread may add.

    A thread that works ahead is counted by the processor time it used: by the clock it would seem the slower the more
    threads share the cores. So waiting for a disk is nobody's but `wait`'s.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the block as `what`, of `MADE` or `TAKEN`."""
        clock: Callable[[], float] = time.thread_time if what in MADE else time.perf_counter
        begun = clock()
        try:
            yield
        finally:
            self.add(what, clock() - begun)

    def add(self, what: str, seconds: float) -> None:
        with self._lock:
            self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def done(self, rows: int) -> None:
        with self._lock:
            self.rows += rows

    def include(self, seconds: Mapping[str, float], rows: int) -> None:
        """Add what another process counted."""
        for what, each in seconds.items():
            self.add(what, each)
        self.done(rows)

    def said(self) -> str:
        """Milliseconds a row: "encode 10.9, wait 0.6 ms; 2.1 decode, 1.4 preprocess ahead of it", or ""."""
        if not self.rows:
            return ""
        own, made = (self._each(names) for names in (TAKEN, MADE))
        return "; ".join(filter(None, (own and f"{own} ms each", made and f"ahead of it {made} ms of a core")))

    def each(self, what: str) -> float:
        """Milliseconds of a row."""
        with self._lock:
            return 1000 * self.seconds.get(what, 0.0) / self.rows

    def _each(self, names: tuple[str, ...]) -> str:
        found = {name: self.each(name) for name in names if name in self.seconds}
        return ", ".join(f"{name} {ms:.2g}" if ms < 10 else f"{name} {ms:.0f}" for name, ms in found.items())
