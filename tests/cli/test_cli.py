"""The commands, run as a user would: mostly in this process, a few as real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from cli_fixtures import error_of, model, pictures, quantized

import clipq
from clipq import benchmark
from clipq.arithmetic.schemes import per_tower
from clipq.cli import main, show
from clipq.loading import worth

TASK = """
name = "colours"
version = 1
[dataset]
kind = "class-folder"
[prompts]
templates = ["a {c} square"]
"""


# Usage and exit codes


@pytest.mark.parametrize("command", ["list", "info", "quantize", "eval", "bench", "embed", "demo"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"usage: clipq {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["lst"],
        ["quantize", "ViT-B-32"],
        ["quantize", "ViT-B-32", "-o", "x.safetensors", "--precision", "int9"],
        ["eval", "ViT-B-32"],
        ["eval", "ViT-B-32", "--task", "x", "--limit", "0"],
        ["bench", "ViT-B-32", "--batch-sizes", "1,two"],
        ["info", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(argv, capsys):
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: clipq" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.split() == ["clipq", clipq.__version__]


def test_an_unknown_model_is_one_line_and_exit_code_1(tmp_path, capsys):
    assert main(["quantize", "ViT-B-23", "-o", str(tmp_path / "x.safetensors")]) == 1
    assert "'ViT-B-32'" in error_of(capsys)
    assert not list(tmp_path.iterdir())


def test_an_unknown_task_is_found_before_a_model_is_loaded(capsys):
    assert main(["eval", "no-such-model", "--task", "imagenet"]) == 1
    assert "unknown task 'imagenet'" in error_of(capsys)


def test_warnings_are_one_line(capsys, recwarn):
    import warnings

    from clipq.cli import _one_line_warnings
    from clipq.errors import ClipqWarning

    with _one_line_warnings():
        warnings.simplefilter("always")
        warnings.warn("half of it stays float", ClipqWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "clipq: warning: half of it stays float"
    assert "UserWarning: something else" in err or any(str(w.message) == "something else" for w in recwarn)


def test_sizes_and_counts_read_well():
    assert [show.size(n) for n in (0, 999, 1000, 12_345_678, 2_500_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "2.50 GB",
    ]
    assert [show.number(n) for n in (7, 1500, 151_277_313)] == ["7", "1.5 k", "151.3 M"]


# list and info


def test_list_shows_the_zoo(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in clipq.list_models())
    assert "embedded" in out


def test_list_as_json_is_the_registry(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in found] == clipq.list_models()
    assert all(entry["licence"] and entry["status"] for entry in found)


@pytest.fixture
def quick(monkeypatch) -> None:
    """The measurement of this machine, with tiny models."""
    sizes = worth.Sizes(1, 16, 32, 16, image_width=32, text_width=32, head_width=16, context_length=12, vocab_size=64)
    measure = partial(worth.measure, limit=0.02, sizes=sizes)
    monkeypatch.setattr(worth, "measure", measure)
    monkeypatch.setattr("clipq.loading.load.measure", measure)


def test_info_of_the_machine(quick, capsys):
    from clipq.machine import cores, versions

    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cores"] == cores()
    assert found["versions"] == versions()
    assert found["kernels on cpu"][found["kernel path on cpu"]] == "chosen"
    assert main(["info"]) == 0
    assert found["kernel path on cpu"] in capsys.readouterr().out


def test_info_answers_whether_int8_is_worth_it(quick, capsys):
    assert main(["info", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["worth"]
    assert [one["device"] for one in answers][0] == "cpu"
    (image, text) = answers[0]["towers"]
    assert answers[0]["choice"] == {"image": image["choice"], "text": text["choice"]}
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert answers[0]["advice"] in " ".join(out.split())
    rows = {line.split()[0]: line for line in reversed(out.splitlines()) if line.strip()}
    for timing in image["timings"]:
        assert f" {timing['speed']:.2f} " in rows[timing["precision"]]
    assert "*" in rows[image["choice"]]


def test_info_without_the_measurement(monkeypatch, capsys):
    monkeypatch.setattr(worth, "measure", lambda *a, **k: pytest.fail("measured"))
    assert main(["info", "--no-measure"]) == 0
    assert "x fp32" not in capsys.readouterr().out
    assert main(["info", "--no-measure", "--json"]) == 0
    assert "worth" not in json.loads(capsys.readouterr().out)


def test_info_names_a_native_library_that_is_missing(monkeypatch, capsys):
    from clipq import kernels

    why = {"native": "no compiler was there", "reference": "chosen"}
    monkeypatch.setattr(kernels, "chosen", lambda device, weights=None: "reference")
    monkeypatch.setattr(kernels, "why", lambda device: why)
    timing = [worth.Timing("fp32", 1.0, 2.0, 1.9, 2.1), worth.Timing("bf16", 0.1), worth.Timing("int8", 0.25)]
    tower = worth.TowerWorth("image", 4, tuple(timing), "fp32")
    monkeypatch.setattr(worth, "_race", lambda name, *others: replace(tower, tower=name))
    assert main(["info"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "int8 is 0.25 x as fast as fp32 for images and 0.25 x for texts here: not worth it for speed" in out
    assert "clipq's native library is missing (no compiler was there), so int8 runs on reference." in out


def test_info_of_a_file(quantized, capsys):
    assert main(["info", str(quantized), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["precision"] == {"image": "int8", "text": "int8"}
    assert found["host"] == "open_clip"
    assert found["bytes per dtype"]["I8"]
    assert main(["info", str(quantized)]) == 0
    assert "image: int8" in capsys.readouterr().out


def test_info_of_a_file_needs_no_torch(quantized):
    code = f"import sys\nfrom clipq.cli import main\nassert main(['info', {str(quantized)!r}]) == 0\n"
    code += "assert not {'torch', 'numpy', 'open_clip', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all", b"\xff" * 64])
def test_info_of_what_is_no_clipq_file(content, tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert main(["info", str(path)]) == 1
    assert "x.safetensors" in error_of(capsys)


# quantize


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


def test_quantize_overwrites_only_if_told_to(model, tmp_path, capsys):
    path = tmp_path / "kept.safetensors"
    path.write_bytes(b"precious")
    assert main(["quantize", model, "-o", str(path)]) == 1
    assert "--force" in error_of(capsys)
    assert path.read_bytes() == b"precious"
    assert main(["quantize", model, "-o", str(path), "--force"]) == 0
    assert path.stat().st_size > 1000


# eval


@pytest.fixture
def task(tmp_path) -> str:
    path = tmp_path / "colours.toml"
    path.write_text(TASK)
    return str(path)


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


# bench


def test_bench_compares_with_fp32(model, capsys):
    assert main(["bench", model, "--batch-sizes", "1,2", "--runs", "2", "--no-memory", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["tower"], row["batch_size"]) for row in found["rows"]] == [
        ("image", 1), ("image", 2), ("text", 1), ("text", 2),
    ]  # fmt: skip
    for row in found["rows"]:
        assert row["ms"]["min"] <= row["ms"]["median"] <= row["ms"]["max"]
        assert row["speedup"] == pytest.approx(row["baseline_ms"]["median"] / row["ms"]["median"])
        assert row["items_per_second"] == pytest.approx(1000 * row["batch_size"] / row["ms"]["median"])
    assert found["baseline"]["precision"] == {"image": "fp32", "text": "fp32"}


def test_bench_measures_memory_in_a_process_of_its_own(model, capsys, monkeypatch):
    found = benchmark.memory({"name_or_path": model, "precision": "int8"}, 1)
    assert 0 < found["idle"] <= found["loaded"] <= found["peak"]
    assert found["load_seconds"] > 0
    monkeypatch.setattr(benchmark, "memory", lambda loading, batch_size: found)  # once is slow enough
    assert main(["bench", model, "--batch-sizes", "1", "--runs", "1"]) == 0
    out = capsys.readouterr().out
    assert show.size(found["peak"]) in out
    assert "kernel path" in out
