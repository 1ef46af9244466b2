"""Maps are found where there is one, and none is made up where there is none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipq.alignment import Map, fit
from clipq.alignment.fitting import Candidate, _fitted
from clipq.errors import DataError, UnknownNameError


def orthogonal(out, inputs):
    return torch.linalg.qr(torch.randn(max(out, inputs), max(out, inputs), dtype=torch.float64)).Q[:out, :inputs]


def cosine(found: Map, new, old):
    return torch.cosine_similarity(found(new), old.float(), dim=1)


@pytest.fixture
def new():
    """Embeddings as models give them: of several lengths, in a cone, a dimension far wider than the others."""
    rows = torch.randn(400, 24) + 0.5
    rows[:, 3] = rows[:, 3] * 20 + 10
    return rows * (1 + torch.rand(400, 1))


@pytest.mark.parametrize("out", [24, 30])
@pytest.mark.parametrize("method", ["best", "orthogonal", "ridge"])
def test_a_turned_space_is_turned_back(out, method, new):
    turn = orthogonal(out, 24)
    old = new.double() @ turn.T
    found = fit(new[:300], old[:300], method)
    assert cosine(found, new[300:], old[300:]).min() > 0.9999
    if method == "orthogonal":
        torch.testing.assert_close(found.weight, turn, atol=1e-6, rtol=0)
        assert found.offset is None


def test_a_space_of_fewer_dimensions(new):
    old = new.double() @ orthogonal(16, 24).T
    assert cosine(fit(new[:300], old[:300]), new[300:], old[300:]).mean() > 0.99


def test_a_sheared_and_moved_space_needs_more_than_a_turn(new):
    shear = torch.randn(24, 24, dtype=torch.float64) / 5 + orthogonal(24, 24)
    old = new.double() @ shear.T + torch.randn(24, dtype=torch.float64)
    turned, ridge = fit(new[:300], old[:300], "orthogonal"), fit(new[:300], old[:300], "best")
    assert cosine(ridge, new[300:], old[300:]).mean() > 0.998 > 0.98 > cosine(turned, new[300:], old[300:]).mean()
    assert "ridge" in ridge.about["method"] and ridge.about["pairs"] == 300


def test_the_ridge_solution_is_the_minimum_of_what_it_minimizes(new):
    """Against a solver that knows nothing of eigenvalues: rows for the ridge below rows for the pairs."""
    old = F.normalize(torch.randn(400, 24, dtype=torch.float64), dim=1)
    candidate = Candidate("identity", ridge=0.3, offset=True)
    found = dict(_fitted(new.double(), old, [candidate]))[candidate]
    lengths = new.double().norm(dim=1, keepdim=True)
    inputs = torch.cat([new.double() / lengths, lengths.mean() / lengths], dim=1)
    mean = float((inputs.T @ inputs / 400).diagonal().mean())
    left = torch.cat([inputs, torch.eye(25).double() * (0.3 * mean * 400) ** 0.5])
    right = torch.cat([old - new.double() / lengths, torch.zeros(25, 24).double()])
    change = torch.linalg.lstsq(left, right).solution
    torch.testing.assert_close(found.weight - torch.eye(24).double(), change[:24].T)
    torch.testing.assert_close(found.offset, change[24] * lengths.mean())


def test_noise_is_no_reason_for_a_map(new):
    old = F.normalize(new, dim=1) + 0.003 * torch.randn(400, 24)
    found = fit(new, old)
    assert found.is_identity and found.about["method"] == "none"
    assert found.about["held_out_overlap_at_10"]["none"] > 0.8


def test_of_two_spaces_that_have_nothing_in_common_it_says_so(new):
    found = fit(new, torch.randn(400, 24))
    assert max(found.about["held_out_overlap_at_10"].values()) < 0.15


@pytest.mark.parametrize(("out", "inputs"), [(24, 24), (30, 24)])
def test_products_with_the_other_tower_stay(out, inputs, new):
    weight = orthogonal(out, inputs) + 0.04 * torch.randn(out, inputs, dtype=torch.float64)
    found = Map(weight, torch.randn(out, dtype=torch.float64))
    texts = torch.randn(50, inputs)
    products = found.of_other_tower()(texts).double() @ found(new).double().T
    expected = texts.double() @ new.double().T
    centred = [one - one.mean(dim=1, keepdim=True) for one in (products, expected)]  # an offset is the same for all
    torch.testing.assert_close(*centred, atol=1e-3, rtol=1e-3)
    turn = Map(orthogonal(24, 24))
    torch.testing.assert_close(turn.of_other_tower().weight, turn.weight)


def test_what_pairs_hardly_had_is_not_blown_up_for_the_other_tower():
    weight = orthogonal(24, 24) * torch.tensor([1e-6, 1e3] + [1.0] * 22, dtype=torch.float64)
    values = torch.linalg.svdvals(Map(weight).of_other_tower().weight)
    assert values.min() == pytest.approx(0.5) and values.max() == pytest.approx(2)


def test_the_other_tower_of_one_space_stays(new):
    noisy = new @ (torch.eye(24) + 0.01 * torch.randn(24, 24))
    found = fit(new, noisy, "ridge")
    assert found.one_tower and not found.is_identity and found.of_other_tower().is_identity
    assert not fit(new, new.double() @ orthogonal(24, 24).T).one_tower


def test_equal_pairs_give_equal_maps(new):
    old = new @ torch.randn(24, 24) / 5
    one, other = fit(new, old), fit(new, old)
    assert one.weight.equal(other.weight) and one.about == other.about


def test_what_cannot_be_fitted(new):
    with pytest.raises(DataError, match="cannot be fitted on 31 pairs"):
        fit(new[:31], new[:31])
    with pytest.raises(DataError, match=r"\[400, 24\] and \[399, 24\]"):
        fit(new, new[1:])
    with pytest.raises(DataError, match="not finite"):
        fit(new, new.clone().index_fill_(0, torch.tensor([3]), torch.nan))
    with pytest.raises(UnknownNameError, match="Did you mean 'ridge'"):
        fit(new, new, "rigde")
    with pytest.raises(DataError, match=r"takes rows \[n, 24\]"):
        Map(torch.eye(24).double())(torch.zeros(3, 5))


def test_constant_and_empty_dimensions_do_no_harm(new):
    new[:, 5], new[:, 6] = 0, 3
    turn = orthogonal(24, 24)
    found = fit(new[:300], (new.double() @ turn.T)[:300])
    assert cosine(found, new[300:], (new.double() @ turn.T)[300:]).min() > 0.9999
