"""Comparisons on hand-made answers, and results that go through a file and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from result_helpers import BASE, a_result, answers
from torch.nn.functional import normalize

from clipq.errors import ResultError
from clipq.evaluation.comparison import aligned, comparison, towers
from clipq.evaluation.metrics import cosines, mean_per_class_recall, metrics, top_answers
from clipq.evaluation.results import Result, read_baseline, read_results, with_answers

OWN = answers([[3, 1, 0], [1, 3, 0], [0, 2, 1], [0, 1, 2], [3, 0, 1]], [0, 0, 1, 2, 2])


def test_metrics_by_hand():
    assert metrics(BASE)["top1"] == pytest.approx(4 / 5) and metrics(BASE)["top5"] is None
    assert metrics(BASE)["mean_per_class_recall"] == pytest.approx((1 + 1 + 1 / 2) / 3)


def test_recall_leaves_out_classes_without_images():
    labels, correct = torch.tensor([0, 0, 4]), torch.tensor([True, False, True])
    assert mean_per_class_recall(labels, correct) == pytest.approx(0.75)


def test_equal_classes_tie_and_the_first_is_the_answer():
    classes = torch.cat([torch.eye(6), torch.eye(6)])[[0, 1, 2, 3, 4, 5, 1, 1]]
    images = normalize(torch.tensor([[1.0, 9, 2, 3, 4, 0], [1.0, 9, 2, 3, 4, 0], [9.0, 5, 4, 3, 2, 1]]), dim=-1)
    top1, top5 = top_answers(images, classes, torch.tensor([7, 2, 2]))
    assert top1.tolist() == [1, 1, 0]
    assert top5.tolist() == [True, False, True]  # second: 1, 6, 7, 4 and 3 lie above 2. Third: 0, 1, 6 and 7 do


def test_top5_is_what_topk_says_where_nothing_ties():
    generator = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(50, 8, generator=generator), dim=-1)
    classes = normalize(torch.randn(20, 8, generator=generator), dim=-1)
    labels = torch.randint(20, (50,), generator=generator)
    top1, top5 = top_answers(images, classes, labels)
    order = (images @ classes.T).topk(5, dim=-1).indices
    assert top1.equal(order[:, 0]) and top5.equal((order == labels[:, None]).any(dim=-1)) and 0 < top5.sum() < 50


def test_comparison_by_hand():
    found = comparison(*aligned(OWN, BASE))
    assert (found["n"], found["lost"], found["gained"]) == (5, 2, 1)
    assert found["drop_points"] == pytest.approx(20) and found["mcnemar_p"] == 1.0
    assert found["drop_interval_points"][0] < 20 < found["drop_interval_points"][1]
    assert (found["changed"], found["agreement"]) == pytest.approx((3 / 5, 2 / 5))
    assert found["recovery"] == pytest.approx((3 / 5) / (4 / 5))
    assert found["image_cosine"]["min"] == pytest.approx(6 / 10)  # [3, 1, 0] and [1, 3, 0]; so are [3, 0, 1], [1, 0, 3]
    assert found["image_cosine"]["mean"] == pytest.approx((1 + 0.6 + 1 + 4 / 5 + 0.6) / 5)
    assert found["text_cosine"] == pytest.approx({"mean": 1, "p1": 1, "min": 1})
    assert found["baseline_metrics"]["top1"] == pytest.approx(4 / 5)


def test_a_model_against_itself_costs_nothing():
    found = comparison(BASE, BASE)
    assert (found["drop_points"], found["changed"], found["mcnemar_p"], found["recovery"]) == (0, 0, 1, 1)
    assert found["drop_interval_points"][0] < 0 < found["drop_interval_points"][1]
    assert 50 < found["minimum_detectable_drop_points"] < 100  # five images show little


def test_recovery_of_a_baseline_that_is_never_right_is_none():
    wrong = answers([[1, 0, 0]] * 2, [1, 2])
    assert comparison(wrong, wrong)["recovery"] is None


def test_towers_by_hand():
    swapped = torch.eye(3)[[1, 0, 2]]  # a text tower that confuses the first two classes
    own = answers([[3, 1, 0], [1, 3, 0], [0, 2, 1], [0, 1, 2], [3, 0, 1]], [0, 0, 1, 2, 2], swapped)
    cells = {(cell["image"], cell["text"]): (cell["top1"], cell["agreement"]) for cell in towers(own, BASE)}
    assert cells == {
        ("baseline", "baseline"): (pytest.approx(0.8), 1.0),
        ("baseline", "model"): (pytest.approx(0.2), pytest.approx(0.2)),
        ("model", "baseline"): (pytest.approx(0.6), pytest.approx(0.4)),
        ("model", "model"): (pytest.approx(0.4), pytest.approx(0.2)),
    }
    assert metrics(own)["top1"] == cells["model", "model"][0]


def test_cosines_by_hand():
    one = torch.tensor([[1.0, 0], [1, 0], [1, 0]])
    other = torch.tensor([[1.0, 0], [0, 1], [3, 4]])
    assert cosines(one, other) == pytest.approx({"mean": 1.6 / 3, "p1": 0.012, "min": 0.0})


def test_only_images_that_both_could_read_are_compared():
    own = answers([[3, 1, 0], [0, 2, 1], [1, 0, 3]], [0, 1, 2], keys=("0.png", "2.png", "4.png"))
    base = replace(BASE, keys=("0.png", "1.png", "2.png", "3.png", "5.png"))
    found = comparison(*aligned(own, base))
    assert (found["n"], found["changed"]) == (2, 0) and metrics(aligned(own, base)[1])["top1"] == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "other"}, r"the task of this run is t version 1 .*of the baseline other version 1"),
        ({"task_version": 2}, r"t version 1 .* t version 2"),
        ({"digest": "elsewhere"}, r"data of this run is digest .* elsewhere"),
        ({"keys": tuple("abcde")}, "no image that both"),
        ({"keys": ("1.png", "0.png", "2.png", "3.png", "4.png")}, "another order"),
        ({"labels": torch.tensor([1, 0, 1, 2, 2])}, "other labels"),
        ({"images": torch.eye(5)}, "embedding width of this run is 3 .* 5"),
        ({"classes": torch.eye(3)[:2]}, "number of classes"),
    ],
)
def test_a_baseline_that_does_not_fit_is_refused_naming_both(change, says):
    with pytest.raises(ResultError, match=says):
        aligned(OWN, replace(BASE, **change))


def test_a_result_is_one_line_and_comes_back(tmp_path):
    result = a_result()
    assert "\n" not in result.to_json() and Result.from_json(result.to_json()) == result
    kept = result.append(tmp_path / "deeper" / "r.jsonl")
    plain = a_result(task="u").append(tmp_path / "deeper" / "r.jsonl", answers=False)
    assert read_results(tmp_path / "deeper" / "r.jsonl") == [kept, plain]
    assert plain.answers_file is None and kept.answers_file.startswith("r.jsonl.answers/")
    again = read_baseline(tmp_path / "deeper" / "r.jsonl", "t").answers
    assert again.keys == BASE.keys and again.images.equal(BASE.images) and comparison(again, BASE)["changed"] == 0


def test_a_baseline_file_must_hold_an_fp32_result_of_the_task_with_answers(tmp_path):
    path = tmp_path / "r.jsonl"
    a_result(model={**a_result().model, "precision": {"image": "int8", "text": "fp32"}}).append(path)
    with pytest.raises(ResultError, match=r"no fp32 result of the task 't'; it holds t \(int8/fp32\)"):
        read_baseline(path, "t")
    a_result().append(path, answers=False)
    with pytest.raises(ResultError, match="comes without per-image answers"):
        read_baseline(path, "t")
    with pytest.raises(ResultError, match="comes without per-image answers"):
        with_answers(a_result(answers=None))
    kept = a_result().append(path)
    (tmp_path / kept.answers_file).write_bytes(b"damaged")
    with pytest.raises(ResultError, match=r"cannot read the answers .*safetensors"):
        read_baseline(path, "t")


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors"])
def test_a_foreign_result_cannot_point_elsewhere(tmp_path, name):
    (tmp_path / "r.jsonl").write_text(a_result(answers_file=name).to_json() + "\n")
    with pytest.raises(ResultError, match="lies outside"):
        read_baseline(tmp_path / "r.jsonl", "t")


def test_a_printed_result_is_a_table():
    lines = str(a_result()).splitlines()
    assert lines[0] == "model                  m (fp32)"
    assert lines[2].startswith("top-1                  80.00 % (95 % interval ")
    found = {"comparison": comparison(*aligned(OWN, BASE)), "towers": towers(OWN, BASE)}
    text = str(a_result(**found, baseline=a_result().model))
    assert "drop                  20.00 points" in text and "\nimage tower  text tower  top-1    agreement\n" in text
    moved = {"n": 5, "image_cosine": {"mean": 1, "p1": 1, "min": 1}, "text_cosine": None}  # of fidelity
    text = str(a_result(task="fidelity", n_classes=0, metrics={}, comparison=moved))
    assert "top-1" not in text and "fidelity version 1: 5 images\n" in text
    assert "image cosine to fp32  mean 1.00000, 1st percentile 1.00000, min 1.00000" in text
