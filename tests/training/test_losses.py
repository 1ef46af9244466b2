"""The losses against plain definitions, and what the factor and the parts promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from clipq.training.losses import LOSSES, contrastive, cosine, similarity


def embedded(*towers: str, count: int = 6) -> dict[str, torch.Tensor]:
    return {tower: normalize(torch.randn(count, 12, dtype=torch.float64), dim=-1) for tower in towers}


@pytest.mark.parametrize("towers", [("image",), ("text",), ("image", "text")])
def test_cosine_is_the_mean_distance(towers):
    student, teacher = embedded(*towers), embedded(*towers)
    expected = torch.stack([1 - cosine_similarity(student[t], teacher[t]).mean() for t in towers]).mean()
    assert torch.allclose(cosine(student, teacher, 1.0), expected)


def test_similarity_is_the_divergence_of_whom_each_is_like():
    student, teacher = embedded("image", "text"), embedded("image", "text")
    total = 0.0
    for one, other in (("image", "text"), ("text", "image")):
        for row in range(6):
            p = (10 * teacher[other] @ teacher[one][row]).exp()
            q = (10 * student[other] @ student[one][row]).exp()
            p, q = p / p.sum(), q / q.sum()
            total += sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True)) / 6
    assert float(similarity(student, teacher, 10.0)) == pytest.approx(total / 2, rel=1e-9)


@pytest.mark.parametrize("name", ["cosine", "similarity"])
@pytest.mark.parametrize("towers", [("image",), ("image", "text")])
def test_who_embeds_as_the_teacher_has_nothing_to_learn(name, towers):
    same = embedded(*towers)
    assert abs(float(LOSSES[name](same, same, 50.0))) < 1e-12
    assert float(LOSSES[name](embedded(*towers), same, 50.0)) > 0.1


def test_within_one_tower_an_input_is_not_compared_with_itself():
    student, teacher = embedded("image"), embedded("image")
    total = 0.0
    for row in range(6):
        others = [place for place in range(6) if place != row]
        p, q = ((10 * each["image"][others] @ each["image"][row]).softmax(0) for each in (teacher, student))
        total += float((p * (p / q).log()).sum()) / 6
    assert float(similarity(student, teacher, 10.0)) == pytest.approx(total, rel=1e-9)


def test_contrastive_is_open_clips():
    from open_clip.loss import ClipLoss

    student = {tower: one.float() for tower, one in embedded("image", "text").items()}
    expected = ClipLoss()(student["image"], student["text"], 20.0)
    assert torch.allclose(contrastive(student, {}, 20.0), expected)
    own = 20 * student["image"] @ student["text"].T
    assert torch.allclose(expected, (cross_entropy(own, torch.arange(6)) + cross_entropy(own.T, torch.arange(6))) / 2)
