"""How far long work is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .spent import TAKEN, Spent

Begin = Callable[[str, int], Callable[[int], None]]
"""Told a title and a total number of rows, it gives the function that is told of rows done."""

_SECONDS = 10.0  # between two lines at least
_SHARE = 0.1  # of the rows, between two lines
_SILENCE = 60.0  # seconds after which a line comes in any case


@contextmanager
def progress_of(shown: bool, progress: bool | None, spent: Spent | None = None) -> Iterator[Begin]:
    """Progress on stderr. `progress`: True is a bar, False nothing; `None` is a bar on a terminal, else lines.

    shown: False (another process shows it) is nothing in any case. spent: what the work says of its time; how many
    rows a second are done and where the time goes stand beside the bar, and in a last line of what was long or had one.
    """
    spent, begun = spent or Spent(), time.monotonic()
    terminal = sys.stderr.isatty()
    if not shown or progress is False:
        yield lambda title, total: lambda rows: None
        return
    if progress or terminal:
        with _bar(spent) as begin:
            yield begin
    else:
        yield lambda title, total: Lines(title, total, spent=spent).advance
    seconds = time.monotonic() - begun
    if (said := spent.said()) and (progress or terminal or seconds >= _SECONDS):
        print(
            f"clipq: {spent.rows} inputs in {span(seconds)}, {spent.rows / seconds:.1f} a second; {said}",
            file=sys.stderr,
        )


@contextmanager
def _bar(spent: Spent) -> Iterator[Begin]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    where = TextColumn("{task.fields[where]}")
    with Progress(*columns, where, console=Console(stderr=True)) as bar:

        def begin(title: str, total: int) -> Callable[[int], None]:
            task, rate = bar.add_task(title, total=total, where=""), Rate(spent)

            def advance(rows: int) -> None:
                bar.update(task, advance=rows, where=rate.said())

            return advance

        yield begin


@dataclass
class Rate:
    """Rows a second since it was made; those taken from an earlier run count for nothing."""

    spent: Spent
    clock: Callable[[], float] = time.monotonic
    begun: float = field(init=False)
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.begun, self.rows = self.clock(), self.spent.rows

    def said(self) -> str:
        """ "61/s, wait 4 %" (for what is read ahead), or "" while there are none: a bar has 80 columns."""
        rows, seconds = self.spent.rows - self.rows, self.clock() - self.begun
        waited = 100 * self.spent.seconds.get("wait", 0.0) / (sum(map(self.spent.seconds.get, TAKEN, (0.0, 0.0))) or 1)
        return f"{rows / seconds:.0f}/s, wait {waited:.0f} %" if rows and seconds else ""


@dataclass
class Lines:
    """A line every ten seconds if a tenth is done since the last one, and once a minute in any case."""

    title: str
    total: int
    clock: Callable[[], float] = time.monotonic
    spent: Spent = field(default_factory=Spent)
    done: int = 0
    said: int = 0
    begun: float = field(init=False)
    last: float = field(init=False)
    earlier: int = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.last = self.clock()
        self.earlier = self.spent.rows  # of other work, or of this one's fp32 baseline

    def advance(self, rows: int) -> None:
        self.done += rows
        now = self.clock()
        due = now - self.last >= (_SECONDS if self.done - self.said >= _SHARE * self.total else _SILENCE)
        if due and self.done < self.total:
            left = (now - self.begun) / self.done * (self.total - self.done)
            share = f"{100 * self.done / self.total:.0f} %"
            fresh = self.spent.rows - self.earlier
            rate = f"{fresh / (now - self.begun):.1f} a second" if fresh else ""
            parts = f"{self.done} of {self.total} ({share})", f"about {span(left)} left", rate
            print(f"clipq: {self.title}: {', '.join(filter(None, parts))}", file=sys.stderr, flush=True)
            self.last, self.said = now, self.done


def span(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
