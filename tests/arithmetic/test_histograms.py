"""Histograms in bounded memory against a count of all values at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from observer_cases import CASES, data, ends, parts

from clipq.arithmetic.histograms import MOST_BINS, Histogram

cases = pytest.mark.parametrize("case", CASES)


@cases
def test_a_histogram_is_that_of_all_values_whatever_the_batches(case: str) -> None:
    x, whole = data(case), Histogram()
    whole.add(x)
    width = 2.0**whole.exponent
    places = np.floor(x.double().numpy() / width).astype(object).ravel()
    expected = np.zeros(len(whole.counts))
    for place in places:
        expected[int(place) - whole.first] += 1
    assert np.array_equal(whole.counts.numpy(), expected)
    assert len(whole.counts) <= MOST_BINS
    assert (whole.low, whole.high) == (float(x.min()), float(x.max()))
    for order in (parts(x), parts(x)[::-1]):
        one, merged = Histogram(), Histogram()
        for part in order:
            one.add(part)
            other = Histogram()
            other.add(part)
            merged.merge(other)
        for found in (one, merged):
            assert (found.first, found.exponent, found.low, found.high) == (whole.first, whole.exponent, *ends(x))
            assert torch.equal(found.counts, whole.counts)


def test_a_histogram_is_fine_enough_and_no_larger_than_said() -> None:
    x = torch.randn(1000)
    found = Histogram()
    found.add(x)
    assert MOST_BINS / 4 <= len(found.counts) <= MOST_BINS
    assert 2.0**found.exponent <= 4 * float(x.max() - x.min()) / MOST_BINS


@cases
def test_quantiles_are_those_of_the_sorted_values_to_a_bin(case: str) -> None:
    x, found = data(case), Histogram()
    found.add(x)
    values = np.sort(x.double().numpy().ravel())
    for share in (0.0, 0.001, 0.3, 0.5, 0.97, 1.0):
        right = values[min(max(math.ceil(share * len(values)) - 1, 0), len(values) - 1)]
        assert abs(found.quantile(share) - right) <= 2.0**found.exponent
        assert found.low <= found.quantile(share) <= found.high
