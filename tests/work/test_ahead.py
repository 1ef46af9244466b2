"""Read-ahead: order, exceptions, the bound on what is alive, and threads that end."""

from __future__ import annotations

import threading
import time

import pytest

from clipq.work.ahead import ahead


def _taken(make, items, threads, most):
    with ahead(make, items, threads, most) as made:
        return [one.result() for one in made]


@pytest.mark.parametrize("threads", [0, 1, 2, 4])
@pytest.mark.parametrize("most", [1, 3, 100])
def test_results_come_in_order_whatever_is_made_first(threads, most):
    def make(i: int) -> int:
        time.sleep(0.002 * (i % 3 == 0))  # every third is slow
        return i * i

    assert _taken(make, range(25), threads, most) == [i * i for i in range(25)]
    assert _taken(make, [], threads, most) == []


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_each_has_its_own_exception_and_the_others_come(threads):
    def make(i: int) -> int:
        if i % 4 == 1:
            raise ValueError(f"no {i}")
        return i

    found = []
    with ahead(make, range(10), threads, 3) as made:
        for one in made:
            try:
                found.append(one.result())
            except ValueError as error:
                found.append(str(error))
    assert found == [f"no {i}" if i % 4 == 1 else i for i in range(10)]


class _Counted:
    """A thing that knows how many of it there are."""

    lock, alive, most = threading.Lock(), 0, 0

    def __init__(self) -> None:
        with _Counted.lock:
            _Counted.alive += 1
            _Counted.most = max(_Counted.most, _Counted.alive)

    def __del__(self) -> None:
        with _Counted.lock:
            _Counted.alive -= 1


@pytest.mark.parametrize(("threads", "most"), [(1, 2), (2, 5), (4, 3)])
def test_never_more_than_so_many_are_alive(threads, most):
    """With a taker that is slower than the makers, and one more for what it holds in its hands."""
    _Counted.alive = _Counted.most = 0
    with ahead(lambda _: _Counted(), range(60), threads, most) as made:
        for one in made:
            one.result()
            del one
            time.sleep(0.001)
    assert _Counted.most <= most + 1
    assert _Counted.alive == 0


def test_items_are_asked_for_only_so_far_ahead():
    asked = []
    with ahead(str, (asked.append(i) or i for i in range(100)), 2, 4) as made:
        assert next(made).result() == "0"
        assert len(asked) <= 4
    assert len(asked) <= 5


def test_leaving_ends_the_threads_and_begins_nothing_more():
    begun, before = [], threading.active_count()

    def make(i: int) -> int:
        begun.append(i)
        time.sleep(0.01)
        return i

    with pytest.raises(KeyError), ahead(make, range(1000), 2, 50) as made:
        next(made).result()
        raise KeyError
    done = len(begun)
    assert done < 20 and threading.active_count() == before
    time.sleep(0.05)
    assert len(begun) == done


def test_an_error_of_the_items_themselves_is_raised_and_ends_the_threads():
    def items():
        yield 1
        raise RuntimeError("no more")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no more"), ahead(str, items(), 2, 3) as made:
        list(made)
    assert threading.active_count() == before
