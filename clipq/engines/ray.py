"""Ray: shards by its actors, on this machine or a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..embedding.jobs import Advance, Job, Made, make
from ..errors import ClipqError, EngineError
from ..exports.packages import package
from ..inputs.listing import Inputs
from ..work.work import Work
from .failures import MOST_DEATHS, died

_AHEAD = 2  # units that an actor has been given and not finished: it never waits for the next


@dataclass(frozen=True)
class Ray:
    """Actors of the cluster that this process is connected to, or can find; else of one started on this machine.

    workers: actors; None: as many as the cluster's CPUs allow. threads: `num_cpus` of each (default: 1).
    """

    workers: int | None = None
    threads: int | None = None

    def made(
        self, job: Job, inputs: Inputs, units: Sequence[range], work: Work, advance: Advance
    ) -> Iterator[dict[str, Any]]:
        """As `Engine.made`. Ray starts a dead actor again and gives it its units again, at most three times."""
        ray = package("ray", "ray", "the engine ray")
        threads = self.threads or 1
        with connected(ray):
            workers = self.workers or cpus_of(ray, threads) // threads
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
        raise (
            EngineError(f"an actor of Ray cannot be started: {error}") if unit is None else died(inputs, unit)
        ) from error
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, ClipqError) else error) from error


@contextmanager
def connected(ray: Any) -> Iterator[None]:
    """Ray, initialized: as the caller left it, or for as long as the block runs."""
    if ray.is_initialized():
        yield
        return
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def cpus_of(ray: Any, threads: int) -> int:
    """The cluster's CPUs. Raises `EngineError` where there are fewer than one worker needs."""
    found = int(ray.cluster_resources().get("CPU", 0))
    if found < threads:
        raise EngineError(
            f"a worker of {threads} threads needs as many CPUs, and this Ray cluster has {found}; give fewer threads."
        )
    return found
