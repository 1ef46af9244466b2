"""`clipq eval`: what quantization cost, for reading and as JSON."""

from __future__ import annotations

import json

from cli_helpers import error_of

from clipq.cli import main


def test_eval_reports_what_quantization_cost(model, pictures, task, tmp_path, capsys):
    lines = tmp_path / "results.jsonl"
    argv = ["eval", model, "--task", task, "--data", str(pictures), "--baseline", "-o", str(lines), "--json"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(lines.read_text())
    assert found["n"] == 12
    assert found["model"]["precision"] == {"image": "int8", "text": "int8"}
    assert found["comparison"]["image_cosine"]["mean"] > 0.99
    assert len(found["towers"]) == 4


def test_eval_for_reading(model, pictures, task, capsys):
    assert main(["eval", model, "--task", task, "--data", str(pictures), "--baseline", "--limit", "6"]) == 0
    out = capsys.readouterr().out
    assert "6 images, 3 classes" in out
    assert all(words in out for words in ("top-1", "drop", "95 % interval", "McNemar", "recovery", "same top-1 answer"))


def test_eval_without_baseline_compares_nothing(model, pictures, task, capsys):
    assert main(["eval", model, "--task", task, "--data", str(pictures), "--precision", "fp32"]) == 0
    assert "drop" not in capsys.readouterr().out


def test_eval_of_a_file_with_a_baseline_by_name_or_by_result(model, quantized, pictures, task, tmp_path, capsys):
    argv = ["--task", task, "--data", str(pictures), "--json"]
    assert main(["eval", str(quantized), *argv, "--baseline", model]) == 0
    by_name = json.loads(capsys.readouterr().out)["comparison"]
    lines = tmp_path / "fp32.jsonl"
    assert main(["eval", model, "--precision", "fp32", *argv, "-o", str(lines)]) == 0
    capsys.readouterr()
    assert main(["eval", str(quantized), *argv, "--baseline", str(lines)]) == 0
    assert json.loads(capsys.readouterr().out)["comparison"] == by_name


def test_eval_of_a_folder_that_is_missing(model, task, tmp_path, capsys):
    assert main(["eval", model, "--task", task, "--data", str(tmp_path / "nothing")]) == 1
    assert "nothing" in error_of(capsys)
