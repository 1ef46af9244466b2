"""The fixed orthogonal matrices."""

from __future__ import annotations

import pytest
import torch

from clipq.arithmetic.rotation import orthogonal


@pytest.mark.parametrize("size", [1, 2, 3, 6, 64, 72, 80, 88, 96, 104, 128])
def test_it_is_orthogonal_and_always_the_same(size):
    matrix = orthogonal(size)
    assert torch.allclose(matrix @ matrix.T, torch.eye(size, dtype=torch.float64), atol=1e-12)
    torch.manual_seed(5)
    assert torch.equal(matrix, orthogonal(size))


@pytest.mark.parametrize("size", [64, 72, 80, 96])
def test_no_place_keeps_what_was_large_in_one(size):
    assert orthogonal(size).abs().max() < 0.25
