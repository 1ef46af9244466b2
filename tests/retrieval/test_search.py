"""Search over blocks is exact search: float64 over the whole matrix finds the same rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipq.errors import DataError
from clipq.retrieval import search
from clipq.retrieval.search import gathered, in_blocks, nearest, replaced


def exact(queries, rows, left_out=None, k=10):
    """[q, k] by float64 over everything at once; of equals the first."""
    scores = F.normalize(queries.double(), dim=1) @ F.normalize(rows.double(), dim=1).T
    for query, row in enumerate([] if left_out is None else left_out.tolist()):
        if row >= 0:
            scores[query, row] = -torch.inf
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return order[:, :k], scores[:, :k]


def outliers(rows):
    """One dimension is a hundred times as wide as the others, as in larger CLIPs."""
    rows = rows.clone()
    rows[:, 3] = rows[:, 3] * 100 + 50
    return rows


MATRICES = {
    "random": lambda: torch.randn(333, 17),
    "of many lengths": lambda: torch.randn(257, 8) * torch.logspace(-6, 6, 257)[:, None],
    "an outlier dimension": lambda: outliers(torch.randn(300, 12)),
    "one row": lambda: torch.randn(1, 5),
    "one dimension": lambda: torch.randn(20, 1),
    "half precision": lambda: torch.randn(100, 16).half(),
}


@pytest.mark.parametrize("size", [7, 64, 1000])
@pytest.mark.parametrize("name", MATRICES)
def test_any_blocks_find_what_all_at_once_finds(name, size):
    rows = MATRICES[name]()
    queries = torch.randn(9, rows.shape[1])
    found = nearest(queries, in_blocks(rows, size), k=10)
    order, scores = exact(queries, rows)
    known = min(10, len(rows))
    torch.testing.assert_close(found.scores[:, :known].double(), scores[:, :known], atol=1e-6, rtol=0)
    assert (found.rows[:, known:] == -1).all() and found.scores[:, known:].isneginf().all()
    assert found.found == known
    if name not in ("one dimension", "an outlier dimension"):  # there many are equal to rounding
        assert found.rows[:, :known].equal(order[:, :known])


def test_small_parts_of_large_blocks(monkeypatch):
    rows, queries = torch.randn(500, 6), torch.randn(11, 6)
    whole = nearest(queries, in_blocks(rows, 500))
    monkeypatch.setattr(search, "_SCORES", 11 * 13)  # 13 rows at a time
    parts = nearest(queries, in_blocks(rows, 500))
    assert parts.rows.equal(whole.rows)
    assert parts.scores.allclose(whole.scores, atol=1e-6)


def test_no_more_scores_than_allowed_are_held(monkeypatch):
    held = []
    scored = search._scored
    monkeypatch.setattr(search, "_SCORES", 4096)
    monkeypatch.setattr(search, "_scored", lambda *given: held.append(scored(*given)) or held[-1])
    nearest(torch.randn(32, 4), in_blocks(torch.randn(3000, 4), 1000))
    assert max(one.numel() for one in held) <= 4096


@pytest.mark.parametrize("size", [1, 8, 100])
def test_a_query_does_not_find_the_row_that_is_left_out(size):
    rows = torch.randn(60, 9)
    left_out = torch.arange(60)
    left_out[10:] = -1
    found = nearest(rows, in_blocks(rows, size), left_out, k=5)
    order, _ = exact(rows, rows, left_out, k=5)
    assert found.rows.equal(order)
    assert (found.rows[:10] != torch.arange(10)[:, None]).all()
    assert (found.rows[10:, 0] == torch.arange(10, 60)).all()


@pytest.mark.parametrize("size", [2, 5, 30])
def test_of_equal_rows_the_first_are_found_in_order(size):
    rows = torch.tensor([[1.0, 0.0]]).repeat(30, 1)
    rows[::3] = torch.tensor([[0.0, 1.0]])
    found = nearest(torch.tensor([[2.0, 0.0]]), in_blocks(rows, size), k=20)
    assert found.rows[0].tolist() == [row for row in range(30) if row % 3]


def test_another_width_is_refused():
    with pytest.raises(DataError, match="width 3 cannot search an index of width 4"):
        nearest(torch.randn(2, 3), in_blocks(torch.randn(5, 4)))


@pytest.mark.parametrize("size", [1, 4, 50])
def test_replaced_and_gathered_rows(size):
    rows, order = torch.randn(23, 3), torch.randperm(23)[:9]
    new = torch.randn(9, 3)
    expected = rows.clone()
    expected[order] = new
    before = rows.clone()
    assert torch.cat([block for _, block in replaced(in_blocks(rows, size), order, new)]).equal(expected)
    assert rows.equal(before), "an index in memory is not written to"
    assert gathered(in_blocks(rows, size), order).equal(rows[order])
    with pytest.raises(DataError, match="ends before row 23"):
        gathered(in_blocks(rows, size), torch.tensor([3, 23]))


def test_several_rows_are_left_out():
    index, out = torch.randn(300, 8), torch.tensor([[3, 250, -1], [0, -1, -1]])
    found = nearest(index[[3, 0]], in_blocks(index, 100), out, 300).rows
    assert not set(found[0].tolist()) & {3, 250} and 0 not in found[1] and 250 in found[1]
