"""A Ray cluster: connected to, started on this machine where there is none, and asked what it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ClipqError, EngineError
from ..exports.packages import package


def ray_package() -> Any:
    """Raises `MissingPackageError` with the command that installs it."""
    return package("ray", "ray", "the engine ray")


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


def own_error(error: Exception) -> Exception:
    """The `ClipqError` that a worker raised, if that is what is behind an error of Ray; else that error."""
    found: Any = error
    while found is not None and not isinstance(found, ClipqError):
        found = getattr(found, "cause", None) or found.__cause__
    return found or error


def workers_of(ray: Any, threads: int, spare: int = 0) -> int:
    """As many workers of so many threads as the cluster has CPUs for, `spare` of them left free.

    Raises `EngineError` where there are fewer CPUs than one worker needs: it would wait for ever.
    """
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if cpus < threads + spare:
        left = f" and {spare} more for what reads" if spare else ""
        raise EngineError(
            f"a worker of {threads} threads needs as many CPUs{left}, and this Ray cluster has {cpus}; give fewer "
            "threads, or a larger cluster."
        )
    return (cpus - spare) // threads
