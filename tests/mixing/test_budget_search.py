"""The search over precisions against trying every choice, and what must hold of any budget."""

from __future__ import annotations

import random
from itertools import product

import pytest

from clipq.mixing.search import Option, Point, best, front, thinned


def units(seed: int, count: int, options: int, whole: bool = True) -> list[list[Option]]:
    """Options in no order, some worse in both; `whole`: costs are whole numbers, so that many sums are equal."""
    draw = random.Random(seed)
    return [
        [
            Option(str(i), float(draw.randint(1, 9)) if whole else draw.random(), draw.choice([0, draw.random() ** 4]))
            for i in range(draw.randint(1, options))
        ]
        for _ in range(count)
    ]


def every_choice(given: list[list[Option]], fixed: float) -> list[tuple[float, float]]:
    return [(fixed + sum(o.cost for o in one), sum(o.error for o in one)) for one in product(*given)]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("whole", [True, False])
def test_the_best_for_every_budget_is_the_best_of_all_choices(seed, whole):
    given = units(seed, count=5, options=4, whole=whole)
    points, choices = front(given, 2.5), every_choice(given, 2.5)
    limits = sorted({cost for cost, _ in choices})
    for limit in [limits[0] - 0.1, *limits, limits[-1] + 1]:
        allowed = [error for cost, error in choices if cost <= limit + 1e-9]
        found = best(points, limit + 1e-9)
        if not allowed:
            assert found is None
        else:
            assert found.error == pytest.approx(min(allowed))


def sums(given, point: Point, fixed: float = 0.0) -> tuple[float, float]:
    chosen = [next(o for o in unit if o.name == name) for unit, name in zip(given, point.choice, strict=True)]
    return fixed + sum(o.cost for o in chosen), sum(o.error for o in chosen)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("most", [2, 3, 17, 1000])
def test_what_holds_of_any_front(seed, most):
    given = units(seed, count=24, options=5, whole=bool(seed % 2))
    points = front(given, 7.0, most)
    assert 1 <= len(points) <= most
    for one, other in zip(points, points[1:], strict=False):
        assert one.cost < other.cost and one.error > other.error
    for point in points:
        assert (point.cost, point.error) == pytest.approx(sums(given, point, 7.0))
    cheapest = 7 + sum(min(o.cost for o in unit) for unit in given)
    exact = sum(min(o.error for o in unit) for unit in given)
    assert points[0].cost == pytest.approx(cheapest) and points[-1].error == pytest.approx(exact)
    draw, before = random.Random(seed), None
    for limit in sorted(draw.uniform(cheapest - 5, points[-1].cost + 5) for _ in range(200)):
        found = best(points, limit)
        if limit < points[0].cost:
            assert found is None
            continue
        assert found.cost <= limit  # never above the budget
        assert before is None or found.error <= before.error  # more of it is never worse
        before = found


def test_many_points_are_nearly_as_good_as_all():
    given = units(3, count=12, options=4, whole=False)
    exact, coarse = front(given, most=10**6), front(given, most=200)
    for point in exact:
        near = best(coarse, point.cost * 1.02)
        assert near is None or near.error <= point.error * 1.1 + 1e-3


def test_one_unit_and_none():
    assert front([], 3.0) == [Point(3.0, 0.0, ())]
    assert best(front([]), 0.0) == Point(0.0, 0.0, ())
    only = front([[Option("a", 1.0, 0.5), Option("b", 1.0, 0.2), Option("c", 2.0, 0.2)]])
    assert only == [Point(1.0, 0.2, ("b",))]


@pytest.mark.parametrize("most", [2, 5, 100])
def test_thinning_keeps_the_ends(most):
    points = [Point(float(i), 1.0 / (i + 1), (str(i),)) for i in range(50)]
    found = thinned(points, most)
    assert len(found) <= most and found[0] == points[0] and found[-1] == points[-1]
    assert found == sorted(found, key=lambda one: one.cost) and len(set(found)) == len(found)
