"""The statistics of a paired comparison, against published examples, hand-computed numbers and exact enumeration."""

from __future__ import annotations

import math

import pytest

from clipq.errors import ResultError
from clipq.evaluation.statistics import drop_interval, mcnemar, minimum_detectable_drop, proportion_interval

Z2 = 1.959963984540054**2


@pytest.mark.parametrize(
    ("lost", "gained", "n", "low", "high"),
    [
        (1, 7, 21, -0.517, -0.026),  # airway hyper-responsiveness (Bentur 2009), as in Fagerland et al. 2014
        (7, 1, 21, 0.026, 0.517),
        (0, 0, 44, -Z2 / (44 + Z2), Z2 / (44 + Z2)),  # no discordant image: n d^2 = z^2 d (1 - d), solved by hand
        (5, 0, 5, 0.131, 1.0),
    ],
)
def test_drop_interval_of_known_tables(lost, gained, n, low, high):
    assert drop_interval(lost, gained, n) == pytest.approx((low, high), abs=6e-4)


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 1), (3, 0, 50), (12, 5, 50), (25, 25, 50), (400, 1, 9_000)])
def test_drop_interval_holds_the_drop_and_mirrors(lost, gained, n):
    low, high = drop_interval(lost, gained, n)
    assert -1 <= low < (lost - gained) / n < high <= 1
    mirrored = drop_interval(gained, lost, n)
    assert (-high, -low) == pytest.approx(mirrored, abs=1e-9)


def test_drop_interval_of_many_images_is_the_normal_one():
    lost, gained, n = 3_000, 2_500, 100_000
    drop = (lost - gained) / n
    half = math.sqrt(Z2 * ((lost + gained) / n - drop**2) / n)
    assert drop_interval(lost, gained, n) == pytest.approx((drop - half, drop + half), abs=5e-5)


@pytest.mark.parametrize(("n", "loses", "gains"), [(500, 0.008, 0.004), (500, 0.004, 0.004), (100, 0.03, 0.02)])
def test_drop_interval_covers_the_truth_in_95_percent_of_runs(n, loses, gains):
    """Exact, over all outcomes of `n` images; the normal approximation covers 93 % or less in the last case."""
    covered = 0.0
    for lost in range(20):
        for gained in range(20):
            low, high = drop_interval(lost, gained, n)
            if low <= loses - gains <= high:
                covered += _trinomial(n, lost, gained, loses, gains)
    assert 0.94 < covered < 0.975


def _trinomial(n: int, lost: int, gained: int, loses: float, gains: float) -> float:
    rest = n - lost - gained
    ways = math.lgamma(n + 1) - math.lgamma(lost + 1) - math.lgamma(gained + 1) - math.lgamma(rest + 1)
    return math.exp(ways + lost * math.log(loses) + gained * math.log(gains) + rest * math.log(1 - loses - gains))


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (3, 3, 1.0), (1, 7, 18 / 256), (0, 10, 2 / 1024), (5, 1, 14 / 64)],
)
def test_mcnemar_by_hand(lost, gained, p):
    assert mcnemar(lost, gained) == pytest.approx(p)
    assert mcnemar(gained, lost) == pytest.approx(p)


def test_mcnemar_of_large_counts_is_finite_and_the_exact_sum():
    exact = 2 * sum(math.comb(2_000, k) for k in range(951)) / 2**2_000
    assert mcnemar(950, 1_050) == pytest.approx(exact, rel=1e-9)


def test_wilson_interval_by_hand():
    assert proportion_interval(0, 10) == pytest.approx((0.0, Z2 / (10 + Z2)))
    assert proportion_interval(10, 10) == pytest.approx((10 / (10 + Z2), 1.0))
    assert proportion_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I


def test_minimum_detectable_drop_is_what_mcnemar_finds_in_80_percent_of_runs():
    """The power at that drop, by exact enumeration of the test itself on the discordant images."""
    n, discordant = 2_000, 0.03
    drop = minimum_detectable_drop(n, discordant)
    loses, power = (discordant + drop) / 2, 0.0
    for lost in range(120):
        for gained in range(60):
            if mcnemar(lost, gained) < 0.05:
                power += _trinomial(n, lost, gained, loses, discordant - loses)
    assert 0.72 < power < 0.85  # the exact test is a little conservative
    assert minimum_detectable_drop(4 * n, discordant) == pytest.approx(drop / 2, rel=0.05)


def test_minimum_detectable_drop_where_all_discordant_images_are_lost():
    """Without gains the test finds 6 losses or more; their Poisson number reaches that in 80 % of runs at about 7.9."""
    assert 500 * minimum_detectable_drop(500, 0.0) == pytest.approx(7.9, abs=0.3)
    assert minimum_detectable_drop(500, 0.001) == minimum_detectable_drop(500, 0.0)
    assert math.isnan(minimum_detectable_drop(3, 0.0)) and minimum_detectable_drop(4, 0.0) <= 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: drop_interval(-1, 0, 5),
        lambda: drop_interval(3, 3, 5),
        lambda: drop_interval(0, 0, 0),
        lambda: mcnemar(-1, 0),
        lambda: proportion_interval(6, 5),
        lambda: minimum_detectable_drop(0, 0.1),
        lambda: minimum_detectable_drop(10, 1.1),
    ],
)
def test_impossible_counts_are_typed_errors(call):
    with pytest.raises(ResultError):
        call()
