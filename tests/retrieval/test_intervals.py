"""Bootstrap intervals: the same every time, as wide as theory says, and the percentiles numpy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clipq.retrieval.intervals import mean_interval, percentile_intervals


def test_a_mean_has_the_interval_of_its_standard_error():
    values = torch.randn(2000, dtype=torch.float64) * 3 + 5
    mean, low, high = mean_interval(values, draws=4000)
    half = 1.96 * float(values.std()) / math.sqrt(2000)
    assert mean == pytest.approx(float(values.mean()))
    assert high - mean == pytest.approx(half, rel=0.08) and mean - low == pytest.approx(half, rel=0.08)


def test_it_holds_the_truth_as_often_as_it_says():
    """150 samples of 80 from one distribution: 95 % of the intervals hold its mean, give or take four errors."""
    truth, held = 0.7, 0
    for seed in range(150):
        found = mean_interval((torch.rand(80) < truth).double(), draws=300, seed=seed)
        held += found[1] <= truth <= found[2]
    assert held / 150 >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 150)


def test_an_independent_bootstrap_finds_the_same():
    values, random = torch.rand(150) ** 3, np.random.default_rng(5)
    _, low, high = mean_interval(values, draws=3000)
    drawn = [random.choice(values.double().numpy(), 150).mean() for _ in range(3000)]
    expected = np.quantile(drawn, [0.025, 0.975])
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.008)


def test_percentiles_are_numpys_and_lie_in_their_intervals():
    values, shares = torch.randn(301), (0.0, 0.01, 0.5, 0.95, 1.0)
    found = percentile_intervals(values, shares)
    assert [one[0] for one in found] == pytest.approx(np.quantile(values.double().numpy(), shares).tolist())
    assert [low is None for _, low, _ in found] == [True, True, False, False, True], "nobody drew what lies beyond"
    assert all(low <= value <= high for value, low, high in found if low is not None)
    assert found[2][2] - found[2][1] < 0.5
    assert percentile_intervals(torch.randn(400), (0.01,))[0][1] is not None
    assert len(percentile_intervals(torch.rand(170_000), (0.5,), draws=100)) == 1, "more than torch takes at once"


def test_the_same_draws_every_time_and_none_where_all_are_equal():
    values = torch.rand(40)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values)
    assert mean_interval(torch.ones(40)) == (1, 1, 1)
    assert mean_interval(torch.ones(1)) == (1, 1, 1)
