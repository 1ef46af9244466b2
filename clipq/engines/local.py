"""The processes of this machine: this one alone, or several that it starts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from ..embedding.jobs import Advance, Job, Made, make
from ..inputs.listing import Inputs
from ..machine import cores
from ..work.work import Work
from .failures import MOST_DEATHS, check_counts, died

_AHEAD = 2  # units that a process has been given and not finished: it never waits for the next


@dataclass(frozen=True)
class Local:
    """workers: processes; 1, the default, is this one. threads: of each; None: the cores, shared out."""

    workers: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        check_counts(workers=self.workers, threads=self.threads)

    def made(
        self, job: Job, inputs: Inputs, units: Sequence[range], work: Work, advance: Advance
    ) -> Iterator[dict[str, Any]]:
        """As `Engine.made`. A process that dies is replaced, and its units are made by another."""
        workers = self.workers or 1
        if workers == 1:
            return job.with_threads(self.threads).made(inputs, units, work, advance)
        own = job.with_threads(self.threads or max(1, cores() // workers))
        return _Processes(own, inputs, workers).made(units, work, advance)


class _Processes:
    def __init__(self, job: Job, inputs: Inputs, workers: int):
        self.job, self.inputs, self.workers = job, inputs, workers
        self.deaths: Counter[int] = Counter()

    def made(self, units: Sequence[range], work: Work, advance: Advance) -> Iterator[dict[str, Any]]:
        left = deque(units)
        while left:
            yield from self._until_a_death(left, work, advance)

    def _until_a_death(self, left: deque[range], work: Work, advance: Advance) -> Iterator[dict[str, Any]]:
        """Make what is left; where a process dies, what was begun is left again. A unit stands in `left` or `begun`."""
        begun: dict[Future[Made], range] = {}
        pool = ProcessPoolExecutor(self.workers, get_context("spawn"), _begin, (self.job,))
        try:
            while left or begun:
                while left and len(begun) < self._at_once((*begun.values(), left[0])):
                    future = pool.submit(_make, self.inputs.part(left[0]), left[0])
                    begun[future] = left.popleft()
                for future in wait(begun, return_when=FIRST_COMPLETED).done:
                    made = future.result()
                    yield made.taken(begun.pop(future), work, advance)
        except BrokenProcessPool:
            self._count(begun.values())
            left.extendleft(sorted(begun.values(), key=lambda unit: -unit.start))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _at_once(self, units: Sequence[range]) -> int:
        """Whichever unit kills a process, all that were begun are counted: suspects of two deaths go one by one."""
        return 1 if any(self.deaths[unit.start] > 1 for unit in units) else _AHEAD * self.workers

    def _count(self, begun: Any) -> None:
        for unit in begun:
            self.deaths[unit.start] += 1
            if self.deaths[unit.start] > MOST_DEATHS:
                raise died(self.inputs, unit)


_job: list[Job] = []
"""In a process that was started: the job it is for."""


def _begin(job: Job) -> None:
    _job[:] = [job]


def _make(inputs: Inputs, unit: range) -> Made:
    return make(_job[0], inputs, unit)
