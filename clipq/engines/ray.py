"""Ray: shards by its actors, on this machine or a cluster; and data sets of Ray Data, `embed` and `embedded`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..embedding.jobs import Advance, Job, Made, make
from ..errors import EngineError
from ..inputs.listing import Inputs
from ..work.work import Work
from .failures import MOST_DEATHS, check_counts, died
from .ray_cluster import connected, own_error, ray_package, workers_of
from .ray_data import embed, embedded

__all__ = ["Ray", "embed", "embedded"]

_AHEAD = 2  # units that an actor has been given and not finished: it never waits for the next


@dataclass(frozen=True)
class Ray:
    """Actors of the cluster that this process is connected to, or can find; else of one started on this machine.

    workers: actors; None: as many as the cluster's CPUs allow. threads: `num_cpus` of each (default: 1).
    """

    workers: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        check_counts(workers=self.workers, threads=self.threads)
        ray_package()  # better before the work than in it

    def made(
        self, job: Job, inputs: Inputs, units: Sequence[range], work: Work, advance: Advance
    ) -> Iterator[dict[str, Any]]:
        """As `Engine.made`. Ray starts a dead actor again and gives it its units again, at most three times."""
        ray = ray_package()
        threads = self.threads or 1
        with connected(ray):
            most = workers_of(ray, threads)
            workers = self.workers or most  # a cluster may grow: those that find no room wait, and get nothing to do
            given = job.with_threads(threads)
            kind = ray.remote(num_cpus=threads, max_restarts=-1, max_task_retries=MOST_DEATHS)(_Maker)
            actors = [kind.remote(given) for _ in range(min(workers, len(units)))]
            try:
                yield from _made(ray, actors, inputs, units, work, advance)
            finally:
                for actor in actors:
                    ray.kill(actor)


class _Maker:
    """What an actor is."""

    def __init__(self, job: Job):
        self.job = job

    def ready(self) -> None:
        return None

    def make(self, inputs: Inputs, unit: range) -> Made:
        return make(self.job, inputs, unit)


def _made(
    ray: Any, actors: Sequence[Any], inputs: Inputs, units: Sequence[range], work: Work, advance: Advance
) -> Iterator[dict[str, Any]]:
    """Units go to actors that run: those that a cluster has no room for yet are given none."""
    left, begun = deque(units), {actor.ready.remote(): (actor, None) for actor in actors}
    while left or any(unit is not None for _, unit in begun.values()):
        (ref,), _ = ray.wait(list(begun), num_returns=1)
        actor, unit = begun.pop(ref)
        found = _got(ray, ref, inputs, unit)
        for _ in range(_AHEAD if unit is None else 1):
            if left:
                given = left.popleft()
                begun[actor.make.remote(inputs.part(given), given)] = actor, given
        if unit is not None:
            yield found.taken(unit, work, advance)


def _got(ray: Any, ref: Any, inputs: Inputs, unit: range | None) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayActorError as error:
        if unit is None:
            raise EngineError(f"an actor of Ray cannot be started: {error}") from error
        raise died(inputs, unit) from error
    except ray.exceptions.RayTaskError as error:
        raise own_error(error) from error
