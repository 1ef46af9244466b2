"""Which numbers are worth keeping: warm before they are taken, quiet while they are taken, and of the right thing.

The statistics alone, on numbers that are given: nothing here runs a model.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SPREAD = 0.15
"""A cell whose fastest contestant varies by more than this, between quartiles, was measured on a busy machine."""

WINDOW, STABLE, WARM_SECONDS = 5, 0.05, 2.0
"""A contestant is warm when the medians of two windows of calls, one after the other, differ by less than STABLE; or
after so many seconds, because on a busy machine they may always differ."""

MISCONFIGURED = 8.0
"""Who needs this many times torch fp32's time for the same inputs was set up wrongly: nobody publishes such a thing."""

Cell = tuple[str, str, int]
"""Tower, input, batch size."""


@dataclass(frozen=True)
class WarmUp:
    """Calls before the first sample: how many, their seconds, whether the time was stable, and what a call took."""

    calls: int
    seconds: float
    stable: bool
    call_seconds: float

    def described(self) -> dict[str, Any]:
        return asdict(self)


def warmed(call: Callable[[], float], limit: float = WARM_SECONDS) -> WarmUp:
    """Call until the time is stable, or until `limit` seconds went by. `call()` returns the seconds it took."""
    found = [call()]
    total = found[0]
    while total < limit and not is_stable(found):
        found.append(call())
        total += found[-1]
    return WarmUp(len(found), total, is_stable(found), statistics.median(found[-WINDOW:]))


def is_stable(seconds: Sequence[float]) -> bool:
    """Whether the last two windows of calls took the same time."""
    if len(seconds) < 2 * WINDOW:
        return False
    before, now = statistics.median(seconds[-2 * WINDOW : -WINDOW]), statistics.median(seconds[-WINDOW:])
    return abs(now - before) <= STABLE * before


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Median, range and quartiles (inclusive: of the samples themselves, as numpy's)."""
    quartiles = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
    low, median, high = quartiles
    return {"median": median, "min": min(samples), "max": max(samples), "q1": low, "q3": high}


def spread(ms: Mapping[str, float]) -> float | None:
    """(q3 - q1) / median; None of a result from before quartiles were kept."""
    return (ms["q3"] - ms["q1"]) / ms["median"] if "q1" in ms else None


def noisy_cells(rows: Iterable[Mapping[str, Any]], limit: float = SPREAD) -> list[str]:
    """A sentence for each cell whose fastest contestant's own spread is over `limit`."""
    found = []
    for cell, here in cells(rows).items():
        fastest = min(here, key=lambda row: row["ms"]["median"])
        share = spread(fastest["ms"])
        if share is not None and share > limit:
            found.append(f"{named(cell)}: {fastest['contestant']} varies by {100 * share:.0f} %")
    return found


def misconfigured(rows: Iterable[Mapping[str, Any]], yardstick: str, spared: Iterable[str]) -> dict[str, str]:
    """Contestants over MISCONFIGURED times the yardstick's time in some cell, with the sentence that says so.

    spared: who is never left out, whatever it takes.
    """
    worst: dict[str, tuple[float, Cell]] = {}
    for cell, here in cells(rows).items():
        times = {row["contestant"]: row["ms"]["median"] for row in here}
        for name in times.keys() - {*spared, yardstick} if yardstick in times else ():
            worst[name] = max(worst.get(name, (0.0, cell)), (times[name] / times[yardstick], cell))
    why = "left out: {ratio:.0f} times {yardstick}'s time ({cell}), which is our setting of it, not its speed"
    return {
        name: why.format(ratio=ratio, yardstick=yardstick, cell=named(cell))
        for name, (ratio, cell) in worst.items()
        if ratio > MISCONFIGURED
    }


def cells(rows: Iterable[Mapping[str, Any]]) -> dict[Cell, list[Mapping[str, Any]]]:
    """The rows of each tower, input and batch size, in the order in which they were measured."""
    found: dict[Cell, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["tower"], row["input"], row["batch_size"]), []).append(row)
    return found


def named(cell: Cell) -> str:
    return f"{cell[0]} tower, {cell[1]}, batch {cell[2]}"
