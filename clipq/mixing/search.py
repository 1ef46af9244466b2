"""Choosing one option for each of many units: the least error for a cost, or the least cost for an error.

Errors and costs of units add up (what one unit's noise does to the embedding depends little on the others', as long as
both are small), so this is a multiple-choice knapsack. Its Pareto front is built unit by unit: fronts are merged and
what is worse in both is dropped (Nemhauser and Ullmann, Management Science 15, 1969), which is exact while there are
few points, and afterwards as fine as `most` points are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

MOST = 1000


@dataclass(frozen=True)
class Option:
    """A precision that a unit may have: what it costs (bytes or milliseconds), and the error that it makes."""

    name: str
    cost: float
    error: float


@dataclass(frozen=True)
class Point:
    """A choice of one option for each unit, with the sums of their costs and errors."""

    cost: float
    error: float
    choice: tuple[str, ...]


def front(units: Sequence[Sequence[Option]], fixed: float = 0.0, most: int = MOST) -> list[Point]:
    """The Pareto front of all choices, from the cheapest to the most accurate: cost rises and error falls strictly.

    `fixed`: what is paid whatever is chosen. The cheapest and the most accurate choice are always among them.
    """
    points = [Point(fixed, 0.0, ())]
    for options in units:
        merged = [
            Point(point.cost + one.cost, point.error + one.error, (*point.choice, one.name))
            for point in points
            for one in options
        ]
        points = thinned(_undominated(merged), most)
    return points


def best(points: Sequence[Point], limit: float) -> Point | None:
    """The most accurate point of a front that costs no more than `limit`; None if there is none."""
    place = bisect_right([point.cost for point in points], limit)
    return points[place - 1] if place else None


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` of a front, evenly over its costs; its ends are kept."""
    if len(points) <= most:
        return list(points)
    low, high = points[0].cost, points[-1].cost
    kept = {}
    for point in points[1:-1]:
        kept[int((point.cost - low) / (high - low) * (most - 2))] = point  # the last of a bin has the least error
    return [points[0], *list(kept.values())[: most - 2], points[-1]]


def _undominated(points: list[Point]) -> list[Point]:
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost, one.error)):
        if not kept or point.error < kept[-1].error:
            kept.append(point)
    return kept
