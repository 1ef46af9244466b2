"""`clipq quantize`, and what `--precision auto` means to every command that loads a model."""

from __future__ import annotations

import json

import pytest
import torch
from cli_helpers import error_of

import clipq
from clipq.arithmetic.precisions import per_tower
from clipq.cli import main
from clipq.loading import worth


def test_quantize_writes_what_load_reads(model, quantized):
    fp32, int8 = clipq.load(model, "fp32"), clipq.load(str(quantized))
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    a, b = fp32.encode_image(pixels, normalize=True), int8.encode_image(pixels, normalize=True)
    assert int8.precision == {"image": "int8", "text": "int8"}
    assert (a * b).sum(dim=-1).min() > 0.99


def test_quantize_says_what_it_did(model, tmp_path, capsys):
    path = tmp_path / "mixed.safetensors"
    assert main(["quantize", model, "-o", str(path), "--text", "fp32", "--fallback", "fp32"]) == 0
    out = capsys.readouterr().out
    assert "100.0 %" in out
    assert "left float" in out
    assert "smaller" in out
    assert clipq.load(str(path)).precision == {"image": "int8", "text": "fp32"}


def test_auto_is_taken_wherever_a_model_is_loaded(quick, model, pictures, task, tmp_path, capsys):
    """The choice is the machine's, so it is read off the line that names it."""
    expected = worth.measure().choice
    assert main(["eval", model, "--precision", "auto", "--task", task, "--data", str(pictures), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"]["precision"] == expected
    assert err.count("clipq: precision 'auto' is ") == 1
    bench = ["bench", model, "--image", "auto", "--text", "fp16", "--batch-sizes", "1", "--runs", "1", "--no-memory"]
    assert main([*bench, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["model"]["precision"]
    assert found == {"image": expected["image"], "text": "fp16"}
    path = tmp_path / "auto.safetensors"
    assert main(["quantize", model, "-o", str(path), "--precision", "auto", "--fallback", "fp32"]) == 0
    assert capsys.readouterr().err.count("clipq: precision 'auto' is ") == 1
    assert clipq.load(str(path), "auto").precision == expected


def test_what_auto_means_is_settled_for_other_processes(quick, model):
    from clipq.cli import build_parser
    from clipq.cli.options import loading_of

    args = build_parser().parse_args(["bench", model, "--precision", "auto"])
    found = loading_of(args)["precision"]
    assert per_tower(found) == per_tower(worth.measure().choice)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.bin", "'.bin' is no ending"),
        ("typo/x.safetensors", "there is no folder"),
        ("typo/x", "there is no folder"),
        ("full", "that folder is not empty"),
        ("file", "that is no folder"),
    ],
)
def test_quantize_finds_out_before_the_work_that_it_cannot_write(name, words, tmp_path, capsys):
    (tmp_path / "full" / "x").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    assert main(["quantize", "no-such-model", "-o", str(tmp_path / name), "--force"]) == 1
    assert words in error_of(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_quantize_to_a_folder(model, tmp_path):
    assert main(["quantize", model, "-o", str(tmp_path / "folder")]) == 0
    assert clipq.load(str(tmp_path / "folder")).precision == {"image": "int8", "text": "int8"}


def test_quantize_overwrites_only_if_told_to(model, tmp_path, capsys):
    path = tmp_path / "kept.safetensors"
    path.write_bytes(b"precious")
    assert main(["quantize", model, "-o", str(path)]) == 1
    assert "--force" in error_of(capsys)
    assert path.read_bytes() == b"precious"
    assert main(["quantize", model, "-o", str(path), "--force"]) == 0
    assert path.stat().st_size > 1000


def test_quantize_looks_at_what_it_is_given(model, pictures, tmp_path):
    (tmp_path / "texts.txt").write_text("red\na blue square\n", encoding="utf-8")
    words = ["quantize", str(model), "--precision", "int8-best", "--calibration", str(pictures)]
    words += ["--calibration-texts", str(tmp_path / "texts.txt")]
    assert main([*words, "-o", str(tmp_path / "one.safetensors")]) == 0
    expected = clipq.quantize(
        clipq.load(model, "fp32"), "int8-best", calibration={"image": pictures, "text": ["red", "a blue square"]}
    )
    found = clipq.load(tmp_path / "one.safetensors")
    assert found.precision_name == "int8-best"
    assert found.fingerprint() == expected.fingerprint()


def test_quantize_refuses_what_nothing_would_look_at(model, pictures, tmp_path, capsys):
    words = ["quantize", str(model), "--calibration", str(pictures), "-o", str(tmp_path / "one.safetensors")]
    assert main(words) == 1
    assert "leave out" in capsys.readouterr().err
