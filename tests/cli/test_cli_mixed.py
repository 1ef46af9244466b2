"""`clipq sensitivity`, and `clipq quantize` within a budget or by a file."""

from __future__ import annotations

import pytest
from cli_helpers import error_of

import clipq
from clipq.cli import main
from clipq.mixing.sensitivity import Sensitivity

QUICK = ["--candidates", "fp16,int8"]


@pytest.fixture
def data(pictures, tmp_path) -> list[str]:
    texts = tmp_path / "texts.txt"
    texts.write_text("red\ngreen\nblue\na square\n")
    return ["--calibration", str(pictures), "--calibration-texts", str(texts)]


def test_sensitivity_prints_saves_and_draws(model, data, tmp_path, capsys):
    output, plot = tmp_path / "s.jsonl", tmp_path / "s.svg"
    asked = ["sensitivity", model, "--precisions", "fp16,int8", "-o", str(output), "--plot", str(plot)]
    assert main([*asked, *data]) == 0
    out = capsys.readouterr().out
    found = Sensitivity.load(output)
    assert {one.precision for one in found.effects} == {"fp16", "int8"} and found.inputs == {"image": 12, "text": 4}
    assert all(one.unit in out for one in found.effects)
    assert plot.read_bytes().startswith(b"<?xml")


def test_quantize_within_a_size(model, data, tmp_path, capsys):
    path, scheme, plot = tmp_path / "m.safetensors", tmp_path / "s.toml", tmp_path / "f.svg"
    asked = ["quantize", model, "-o", str(path), "--max-size", "1.1MB", "--scheme-output", str(scheme), *QUICK, *data]
    assert main([*asked, "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    assert "did not see" in out and plot.exists()
    one = clipq.load(path)
    assert clipq.read_schemes(scheme) == one.recipe.schemes
    again = tmp_path / "again.safetensors"
    assert main(["quantize", model, "-o", str(again), "--scheme", str(scheme)]) == 0
    assert clipq.load(again).fingerprint() == one.fingerprint()


def test_quantize_within_a_drop_with_a_settled_tower(model, data, tmp_path):
    path = tmp_path / "m.safetensors"
    assert main(["quantize", model, "-o", str(path), "--max-drop", "50", "--text", "fp32", *QUICK, *data]) == 0
    assert clipq.load(path).precision["text"] == "fp32"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--max-size", "1kB", *QUICK], "cannot be met: the smallest choice"),
        (["--max-size", "80MP"], "unknown unit of size 'MP'"),
        (["--candidates", "int8,fp16"], "go with a budget"),
        (["--plot", "x.svg"], "go with a budget"),
        (["--max-drop", "1", "--candidates", "int8"], "give two or more"),
        (["--max-drop", "1", "--plot", "x.jpg"], "unknown ending"),
        (["--scheme", "none.toml"], "cannot be read"),
    ],
)
def test_what_cannot_be_asked(more, words, model, tmp_path, capsys, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    given = data if "--max-size" in more or "--max-drop" in more else []
    assert main(["quantize", model, "-o", "m.safetensors", *more, *given]) == 1
    assert words in error_of(capsys)
    assert not (tmp_path / "m.safetensors").exists()


def test_a_scheme_and_a_budget_exclude_each_other(model, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["quantize", model, "-o", str(tmp_path / "m.safetensors"), "--scheme", "a.toml", "--max-drop", "1"])
    assert "not allowed with" in capsys.readouterr().err
