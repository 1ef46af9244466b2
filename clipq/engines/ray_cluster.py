"""A Ray cluster: connected to, started on this machine where there is none, and asked what it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ClipqError, EngineError, first_line
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


def own_error(error: Exception) -> ClipqError:
    """The `ClipqError` that a worker raised, as it was there; an `EngineError` for an error of another kind.

    Ray wraps what a worker raises in an error of both classes, whose message is a traceback; `cause` is what it was.
    """
    found: Any = error
    while (inner := getattr(found, "cause", None) or found.__cause__) is not None and not _is_plain(found):
        found = inner
    if _is_plain(found):
        return found
    return EngineError(f"a worker of Ray failed: {type(found).__name__}: {first_line(found)}")


def _is_plain(error: Any) -> bool:
    return isinstance(error, ClipqError) and not hasattr(error, "cause")


def workers_of(ray: Any, threads: int, spare: int = 0) -> int:
    """As many workers of so many threads as the cluster's machines have CPUs for, `spare` of all those left free.

    Raises `EngineError` where none has as many CPUs as one worker needs: it would wait for ever.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    workers = sum(cpus // threads for cpus in nodes)
    workers = min(workers, (sum(nodes) - spare) // threads)
    if workers < 1:
        left = f" and {spare} more for what reads" if spare else ""
        raise EngineError(
            f"a worker of {threads} threads needs as many CPUs{left} on one machine, and this Ray cluster has "
            f"{' + '.join(map(str, nodes)) or 0}; give fewer threads, or larger machines."
        )
    return workers
