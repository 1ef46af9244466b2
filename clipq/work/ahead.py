"""Things made ahead of time by a few threads: in order, each with its own exception, and never too many at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


@contextmanager
def ahead(make: Callable[[T], U], items: Iterable[T], threads: int, most: int) -> Iterator[Iterator[Future[U]]]:
    """Futures of `make(item)`, in the order of `items`; each one's `result()` waits, and raises what `make` raised.

    threads: that make things beside the one that takes them; with 0 of them each is made when it is taken.
    most: are begun or made and not yet taken; `items` is iterated by the thread that takes, at most so far ahead.
    Leaving the block ends the threads: what has not been begun never is, what has been is waited for.
    """
    if threads < 1:
        yield map(_made(make), items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="clipq-ahead") as pool:
        try:
            yield _taken(pool, make, iter(items), most)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # the pool's own end waits


def _taken(pool: ThreadPoolExecutor, make: Callable[[T], U], items: Iterator[T], most: int) -> Iterator[Future[U]]:
    begun: deque[Future[U]] = deque()
    while True:
        while len(begun) < most:
            try:
                begun.append(pool.submit(make, next(items)))
            except StopIteration:
                break
        if not begun:
            return
        yield begun.popleft()


def _made(make: Callable[[T], U]) -> Callable[[T], Future[U]]:
    def made(item: T) -> Future[U]:
        future: Future[U] = Future()
        try:
            future.set_result(make(item))
        except Exception as error:
            future.set_exception(error)
        return future

    return made
