"""recall, overlap and rank-biased overlap, against their definitions written out in plain Python."""

from __future__ import annotations

import pytest
import torch

from clipq.retrieval.ranks import overlap, rank_biased_overlap, recall, share_of
from clipq.retrieval.search import Ranking, in_blocks, nearest

P = 0.9


def ranking(rows, scores=None):
    """Without scores, no two are equal."""
    rows = torch.tensor(rows)
    falling = torch.linspace(1, 0.5, rows.shape[1]).repeat(len(rows), 1)
    return Ranking(rows, falling if scores is None else torch.tensor(scores))


def noisy(noise, rows=300, width=10):
    """What 40 queries find, and what they find with noise in them."""
    index, queries = torch.randn(rows, width), torch.randn(40, width)
    search = [nearest(one, in_blocks(index)) for one in (queries, queries + noise * torch.randn(40, width))]
    return tuple(search)


def rbo(reference, found):
    """Webber et al., equation 30, term by term."""
    depth, total = len(reference), 0.0
    for d in range(1, depth + 1):
        total += len(set(reference[:d]) & set(found[:d])) / d * P**d
    last = len(set(reference) & set(found)) / depth
    return last * P**depth + (1 - P) / P * total


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.3, 10.0])
@pytest.mark.parametrize("at", [1, 10, 100])
def test_sets_of_rows(noise, at):
    reference, found = noisy(noise)
    pairs = list(zip(reference.rows.tolist(), found.rows.tolist(), strict=True))
    shares = [len(set(one[:at]) & set(other[:at])) / at for one, other in pairs]
    assert overlap(reference, found, at).tolist() == pytest.approx(shares)
    assert recall(reference, found, at).tolist() == [float(one[0] in other[:at]) for one, other in pairs]


@pytest.mark.parametrize("noise", [0.0, 0.05, 10.0])
@pytest.mark.parametrize("depth", [1, 2, 10, 100])
def test_rank_biased_overlap(noise, depth):
    reference, found = noisy(noise)
    pairs = zip(reference.rows[:, :depth].tolist(), found.rows[:, :depth].tolist(), strict=True)
    assert rank_biased_overlap(reference, found, depth).tolist() == pytest.approx([rbo(*pair) for pair in pairs])


def test_rank_biased_overlap_of_equal_reversed_and_other_orders():
    one, reversed_, other = ranking([[1, 2, 3, 4]]), ranking([[4, 3, 2, 1]]), ranking([[5, 6, 7, 8]])
    assert rank_biased_overlap(one, one).item() == pytest.approx(1)
    assert rank_biased_overlap(one, other).item() == 0
    assert 0 < rank_biased_overlap(one, reversed_).item() < 1
    assert rank_biased_overlap(one, ranking([[2, 1, 3, 4]])) < rank_biased_overlap(one, ranking([[1, 2, 4, 3]]))
    assert len(rank_biased_overlap(ranking([[-1]]), ranking([[-1]]))) == 1


def test_a_row_that_is_as_good_as_the_last_one_counts():
    """Two copies of one picture stand at places 2 and 3: which of them is found first says nothing."""
    reference = ranking([[7, 8, 9, 1]], [[0.9, 0.8, 0.8, 0.1]])
    assert overlap(reference, ranking([[7, 9, 8, 1]]), 2).item() == 1
    assert overlap(reference, ranking([[7, 1, 8, 9]]), 2).item() == 0.5
    assert recall(ranking([[7, 8, 9]], [[0.8, 0.8, 0.1]]), ranking([[8, 9, 7]]), 1).item() == 1


def test_copies_in_an_index_cost_nothing():
    index = torch.randn(50, 6).repeat_interleave(4, dim=0)
    queries = torch.randn(20, 6)
    shuffled = torch.randperm(len(index))
    reference = nearest(queries, in_blocks(index))
    found = nearest(queries, in_blocks(index[shuffled]))
    found = Ranking(shuffled[found.rows], found.scores)
    for at in (1, 3, 10):
        assert overlap(reference, found, at).tolist() == [1.0] * 20
        assert recall(reference, found, at).tolist() == [1.0] * 20


def test_what_is_not_there_is_not_found():
    missing = ranking([[3, -1, -1]], [[0.5, -torch.inf, -torch.inf]])
    assert overlap(missing, missing, 1).item() == 1
    assert recall(missing, ranking([[-1, -1, -1]], [[-torch.inf] * 3]), 3).item() == 0


def test_share_of_some_rows():
    assert share_of(torch.tensor([1, 3]), ranking([[1, 2, 3, 4], [5, 6, 7, 1]]), 3).tolist() == pytest.approx(
        [2 / 3, 0]
    )
