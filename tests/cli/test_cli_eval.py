"""`clipq eval`: what quantization cost, for reading and as JSON."""

from __future__ import annotations

import json

import pytest
from cli_helpers import error_of, small_files_only
from PIL import Image

from clipq.cli import main
from clipq.evaluation import read_results


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


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-o", "."], "that is a folder"),
        (["-o", "typo/r.jsonl"], "there is no folder typo"),
        (["-o", "r.jsonl", "--resume", "typo/work"], "there is no folder typo"),
        (["--resume", "colours.toml"], "is no folder"),
        (["--baseline", "missing.jsonl"], "cannot read the results missing.jsonl"),
        (["--data", "missing"], "missing does not exist"),
    ],
)
def test_eval_finds_out_before_the_work_what_it_cannot_read_or_write(task, tmp_path, monkeypatch, capsys, argv, words):
    """No model of that name exists, so the message comes before it is looked for."""
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "no-such-model", "--task", task, *argv]) == 1
    assert words in error_of(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["colours.toml"]


def test_a_full_disk_shows_the_result_and_keeps_what_is_finished(model, pictures, task, tmp_path, capsys):
    lines, work = tmp_path / "r.jsonl", tmp_path / "work"
    lines.write_text("")
    argv = ["eval", model, "--task", task, "--data", str(pictures), "--resume", str(work), "-o", str(lines)]
    with small_files_only(1600):  # a shard fits, the answers do not
        assert main(argv) == 1
    out, err = capsys.readouterr()
    assert "top-1" in out and err.startswith("clipq: error: cannot write ") and "Make room" in err
    assert lines.read_text() == "" and len(list(work.rglob("*.safetensors"))) == 2
    with small_files_only(100):  # not even the identity of the work
        assert main([*argv, "--precision", "fp32"]) == 1
    assert "cannot write" in error_of(capsys)
    assert main(argv) == 0 and len(read_results(lines)) == 1


def test_folders_named_by_wnids_are_no_class_names(model, tmp_path, capsys):
    for wnid in ("n01440764", "n01443537"):
        (tmp_path / wnid).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / wnid / "a.png")
    assert main(["eval", "no-such-model", "--task", "folder", "--data", str(tmp_path)]) == 1
    assert "n01440764 and the like are WordNet ids" in (error := error_of(capsys)) and "imagenet1k" in error
