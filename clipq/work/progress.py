"""How far long work is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Begin = Callable[[str, int], Callable[[int], None]]
"""Told a title and a total number of rows, it gives the function that is told of rows done."""

_SECONDS = 10.0  # between two lines at least
_SHARE = 0.1  # of the rows, between two lines
_SILENCE = 60.0  # seconds after which a line comes in any case


@contextmanager
def progress_of(shown: bool, progress: bool | None) -> Iterator[Begin]:
    """Progress on stderr. `progress`: True is a bar, False nothing; `None` is a bar on a terminal, else lines.

    shown: False (another process shows it) is nothing in any case.
    """
    terminal = sys.stderr.isatty()
    if not shown or progress is False:
        yield lambda title, total: lambda rows: None
    elif progress or terminal:
        with _bar() as begin:
            yield begin
    else:
        yield lambda title, total: Lines(title, total).advance


@contextmanager
def _bar() -> Iterator[Begin]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:

        def begin(title: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(title, total=total)
            return lambda rows: bar.advance(task, rows)

        yield begin


@dataclass
class Lines:
    """A line every ten seconds if a tenth is done since the last one, and once a minute in any case."""

    title: str
    total: int
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    said: int = 0
    begun: float = field(init=False)
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.last = self.clock()

    def advance(self, rows: int) -> None:
        self.done += rows
        now = self.clock()
        due = now - self.last >= (_SECONDS if self.done - self.said >= _SHARE * self.total else _SILENCE)
        if due and self.done < self.total:
            left = (now - self.begun) / self.done * (self.total - self.done)
            share = f"{100 * self.done / self.total:.0f} %"
            print(
                f"clipq: {self.title}: {self.done} of {self.total} ({share}), about {span(left)} left",
                file=sys.stderr,
                flush=True,
            )
            self.last, self.said = now, self.done


def span(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
