"""Result files from anybody: every line that is no result is refused, and named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from result_helpers import BASE, a_result

from clipq.errors import ResultError
from clipq.evaluation.answers import Answers
from clipq.evaluation.results import read_results


def changed(**fields) -> str:
    return json.dumps({**json.loads(a_result().to_json()), **fields})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2 of .*no clipq result"),
        ("[1]", "no clipq result"),
        ('{"format": 2}', "format 2"),
        ('{"format": 1, "task": "t"}', "missing or unknown fields: answers_file, baseline"),
        (changed(extra=1), "unknown fields: extra"),
        ("{}", "line 2 of .*no clipq result"),
        ("null", "no clipq result"),
        ("[" * 100_000, "no clipq result.*recursion"),
        ('{"format": 1, "model": ' * 100_000, "no clipq result.*recursion"),
        (changed(format=[1]), r"format \[1\]"),
        (changed(model=None), "'model' of a result must be a table; it is null"),
        (changed(model={}), "'model' of a result must name a model"),
        (changed(model={"name": "m", "precision": {}}), "'model' of a result must name a model"),
        (changed(baseline={"name": 5, "precision": {"image": "fp32"}}), "'baseline' of a result must name a model"),
        (changed(metrics=[]), r"'metrics' of a result must be a table; it is \[\]"),
        (changed(n=True), "'n' of a result must be a whole number; it is true"),
        (changed(n="5"), "'n' of a result must be a whole number"),
        (changed(seconds="x" * 1000), r"'seconds' of a result must be a number; it is .x+\.\.\.$"),
        (changed(seconds=float("nan")), "NaN is no number"),
        (changed(answers_file=7), "'answers_file' of a result must be a text"),
        (changed(towers={}), "'towers' of a result must be a list"),
    ],
)
def test_a_line_that_is_no_result_is_refused(tmp_path, line, says):
    (tmp_path / "r.jsonl").write_text(a_result().to_json() + "\n" + line + "\n")
    with pytest.raises(ResultError, match=says):
        read_results(tmp_path / "r.jsonl")
    with pytest.raises(ResultError, match="cannot read the results"):
        read_results(tmp_path / "missing.jsonl")


def test_what_is_no_plain_file_is_not_read(tmp_path):
    (tmp_path / "r.jsonl").symlink_to("/dev/zero")
    with pytest.raises(ResultError, match="a device"):
        read_results(tmp_path / "r.jsonl")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": torch.zeros(5)}, "labels is torch.float32"),
        ({"labels": torch.full((5,), 3)}, "a label is no class"),
        ({"top1": torch.full((5,), -1)}, "a label is no class"),
        ({"top1": torch.zeros(5, 1, dtype=torch.int64)}, "top1 is"),
        ({"top5": torch.zeros(3, dtype=torch.bool)}, "top5 is"),
        ({"images": torch.zeros(5, 4)}, "images is"),
        ({"images": torch.zeros(5)}, "images is"),
        ({"classes": torch.zeros(3)}, "classes is|images is"),
        ({"keys": ("a", "b")}, "labels is"),
        ({"keys": (1, 2, 3, 4, 5)}, "keys are not names"),
    ],
)
def test_answers_that_do_not_fit_together_are_refused(tmp_path, change, says):
    replace(BASE, **change).save(tmp_path / "a.safetensors")
    with pytest.raises(ResultError, match=f"is damaged: .*{says}"):
        Answers.read(tmp_path / "a.safetensors")
