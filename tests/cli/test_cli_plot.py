"""`--plot` of `clipq bench` and `clipq eval`: a file as asked for, and what cannot be drawn is said before the work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cli_helpers import error_of

from clipq.cli import main
from clipq.evaluation import read_results


def texts(path: Path) -> str:
    return " ".join(node.text or "" for node in ElementTree.parse(path).getroot().iter())


def test_bench_draws_its_report(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["bench", model, "--batch-sizes", "1,2", "--runs", "2", "--no-memory", "--json", "--plot"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)  # the plot's line is no part of it
    assert err == f"the plot: {tmp_path / 'clipq-bench.svg'}\n"
    found = texts(tmp_path / "clipq-bench.svg")
    assert all(f"{row['speedup']:.2f} x" in found for row in report["rows"])


def test_eval_draws_both_models_by_name_or_by_result(model, pictures, task, tmp_path, capsys):
    lines, one, other = tmp_path / "r.jsonl", tmp_path / "one.svg", tmp_path / "other.svg"
    argv = ["eval", model, "--task", task, "--data", str(pictures), "--limit", "7"]
    assert main([*argv, "--precision", "fp32", "-o", str(lines)]) == 0
    assert main([*argv, "--precision", "int8-weight-only", "--baseline", str(lines), "-o", str(lines)]) == 0
    capsys.readouterr()
    assert main([*argv, "--baseline", "--json", "--plot", str(one)]) == 0
    by_name = json.loads(capsys.readouterr().out)
    assert main([*argv, "--baseline", str(lines), "-o", str(lines), "--plot", str(other)]) == 0
    assert f"the plot: {other}" in capsys.readouterr().err
    last = read_results(lines)[-1]
    assert last.comparison == by_name["comparison"] and last.model == by_name["model"]
    assert 0 < last.model["weight_bytes"] < read_results(lines)[0].model["weight_bytes"]
    changed = round(7 * last.comparison["changed"])
    for path in (one, other):
        found = texts(path)
        assert "7 images, 3 classes" in found and f"n = {last.comparison['n']}" in found
        assert (f"changed on {changed} of 7" if changed else "the same on all 7") in found
    assert "int8-weight-only" in texts(other) and "int8-weight-only" not in texts(one)


@pytest.mark.parametrize(
    ("command", "argv", "words"),
    [
        ("bench", ["--plot", "a.gif"], "Allowed: .pdf, .png, .svg. The plot was to be written to a.gif"),
        ("bench", ["--plot", "typo/a.svg"], "there is no folder typo"),
        ("eval", ["--plot"], "add --baseline"),
        ("eval", ["--baseline", "--plot", "a.jpeg"], "unknown ending of a plot '.jpeg'. Did you mean '.png'?"),
        ("eval", ["--baseline", "--plot", "."], "unknown ending of a plot ''"),
        ("eval", ["--baseline", "-o", "bad.jsonl", "--plot"], "line 1 of bad.jsonl: this is no clipq result"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_the_work(task, tmp_path, monkeypatch, capsys, command, argv, words):
    """No model of that name exists, so the message comes before it is looked for."""
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text("no result\n")
    before = sorted(tmp_path.iterdir())
    assert main([command, "no-such-model", *(["--task", task] if command == "eval" else []), *argv]) == 1
    assert words in error_of(capsys)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["bench", "eval"])
def test_without_matplotlib_the_error_says_how_to_get_it(task, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what an import of a missing package does too
    more = ["--task", task, "--baseline"] if command == "eval" else []
    assert main([command, "no-such-model", *more, "--plot"]) == 1
    assert "pip install 'clipq[plots]'" in error_of(capsys)
