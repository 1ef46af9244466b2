"""A long call in parts gives what one call gives, equal rows are encoded once, and no part is larger than said."""

from __future__ import annotations

import pytest
import torch

from clipq.towers.parts import each_once, in_parts


def encoder(sizes: list[int]):
    def encode(texts: list[str]) -> torch.Tensor:
        sizes.append(len(texts))
        return torch.tensor([[float(len(text)), float(ord(text[0]))] for text in texts])

    return encode


@pytest.mark.parametrize("count", [1, 4, 5, 8, 11])
def test_parts_in_order(count):
    rows, sizes = torch.randn(count, 3), []
    found = in_parts(lambda part: sizes.append(len(rows[part])) or rows[part] * 2, count, 4)
    assert torch.equal(found, rows * 2)
    assert sum(sizes) == count and max(sizes) <= 4


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("texts", ["a bb a ccc bb a d", "a b c d e", "a a a a", "a"])
def test_equal_rows_once(texts, size):
    texts, sizes, plain = texts.split(), [], encoder([])
    assert torch.equal(each_once(texts, encoder(sizes), size), plain(texts))
    assert sum(sizes) == len(set(texts)) and max(sizes) <= size


def test_many_equal_rows_far_from_the_first():
    texts = [str(place % 5000) for place in range(12000)]
    assert torch.equal(each_once(texts, encoder([]), 64), encoder([])(texts))


def test_nothing_is_kept_but_the_result():
    """The most tensors that live at a time, in bytes: the result, and two parts."""
    import weakref

    living, most = set(), []

    def encode(texts: list[str]) -> torch.Tensor:
        made = torch.zeros(len(texts), 8)
        living.add(id(made))
        weakref.finalize(made, living.discard, id(made))
        most.append(len(living))
        return made

    for texts in (range(1000), [place % 700 for place in range(1000)]):
        assert each_once([str(text) for text in texts], encode, 10).shape == (1000, 8)
    assert max(most) <= 2
