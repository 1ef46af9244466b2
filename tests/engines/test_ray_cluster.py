"""What is asked of a Ray cluster and what is made of its errors; Ray itself is in tests/clients."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from clipq.engines.ray_cluster import own_error, workers_of
from clipq.engines.table import engine_named
from clipq.errors import DataError, EngineError


def cluster(*cpus: float) -> SimpleNamespace:
    nodes = [{"Alive": True, "Resources": {"CPU": one}} for one in cpus]
    return SimpleNamespace(nodes=lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 99.0}}])


@pytest.mark.parametrize(
    ("cpus", "threads", "spare", "workers"),
    [
        ((8.0,), 4, 0, 2),
        ((8.0,), 4, 1, 1),
        ((9.0,), 4, 1, 2),
        ((6.0, 6.0), 4, 0, 2),
        ((6.0, 6.0), 4, 1, 2),
        ((2.0,), 1, 1, 1),
    ],
)
def test_workers_are_counted_machine_by_machine(cpus, threads, spare, workers):
    assert workers_of(cluster(*cpus), threads, spare) == workers


@pytest.mark.parametrize(
    ("cpus", "threads", "spare", "words"),
    [
        ((4.0, 4.0), 8, 0, "8 threads needs as many CPUs on one machine, and this Ray cluster has 4 [+] 4"),
        ((8.0,), 8, 1, "1 more for what reads on one machine, and this Ray cluster has 8"),
        ((), 1, 0, "has 0"),
    ],
)
def test_a_worker_that_no_machine_can_hold_is_an_error(cpus, threads, spare, words):
    with pytest.raises(EngineError, match=words):
        workers_of(cluster(*cpus), threads, spare)


class _RayTaskError(Exception):
    """As Ray has it: with a traceback for a message, and the worker's error as its cause."""

    def __init__(self, cause: Exception):
        super().__init__("\x1b[36mray::make()\x1b[39m (pid=1)\nTraceback (most recent call last):")
        self.cause = cause


class _Dual(_RayTaskError, DataError):
    pass


def _chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "wrap",
    [
        _RayTaskError,
        _Dual,
        lambda own: _RayTaskError(_Dual(own)),
        lambda own: _Dual(_chained(RuntimeError("UserCodeException"), own)),
        lambda own: own,
    ],
)
def test_the_error_of_a_worker_is_raised_as_it_was(wrap):
    own = DataError("the file x cannot be read.")
    assert own_error(wrap(own)) is own


def test_an_error_of_another_kind_is_said_in_a_line():
    found = own_error(_RayTaskError(KeyError("what")))
    assert type(found) is EngineError and str(found) == "a worker of Ray failed: KeyError: 'what'"


@pytest.mark.parametrize("engine", ["local", "daft"])
@pytest.mark.parametrize("counts", [(-1, 1), (0, 1), (2, 0), (True, 1), (1.5, 1)])
def test_numbers_of_workers_and_threads(engine, counts):
    with pytest.raises(EngineError, match="whole number"):
        engine_named(engine, *counts)
