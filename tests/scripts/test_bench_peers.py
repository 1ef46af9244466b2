"""The comparison with peers as a script: one run, and the line it leaves."""

from __future__ import annotations

import json

import bench_peers
import pytest
from peer_helpers import CLIPQ, EAGER, arguments
from peers.contestants import CONTESTANTS, chosen

from clipq.errors import UnknownNameError


def test_every_contestant_meets_every_input_and_batch_size(result):
    cells = {(row["tower"], row["input"], row["batch_size"]) for row in result["rows"]}
    kinds = [("image", "images"), ("text", "captions"), ("text", "full")]
    assert cells == {(*kind, size) for kind in kinds for size in (1, 2)}
    assert len(result["rows"]) == len(cells) * len([CLIPQ, EAGER, "torch bf16"])
    assert not result["failures"]


def test_times_ratios_and_cosines_belong_together(result):
    own = {(r["tower"], r["input"], r["batch_size"]): r["ms"] for r in result["rows"] if r["contestant"] == CLIPQ}
    for row in result["rows"]:
        assert 0 < row["ms"]["min"] <= row["ms"]["median"] <= row["ms"]["max"]
        clipq = own[row["tower"], row["input"], row["batch_size"]]
        assert row["ratio"] == pytest.approx(row["ms"]["median"] / clipq["median"])
        assert row["cosine"]["min"] > 0.99
        if row["contestant"] == EAGER:
            assert row["cosine"]["min"] == pytest.approx(1)


def test_a_result_says_where_it_comes_from(result):
    assert result["model"]["name"] == "tiny" and result["weights"] == "given"
    assert result["environment"]["threads"] == 1
    measured = {one["name"]: one for one in result["contestants"]}
    assert measured["torch bf16"]["versions"]["torch"] == result["environment"]["versions"]["torch"]
    assert {one["status"] for one in measured.values()} == {"measured"}
    assert result["inputs"]["tokens"]["full"] == {"min": 16, "mean": 16, "max": 16}
    assert result["command"].startswith("bench_peers.py --weights ") and "--only 'torch bf16'" in result["command"]
    assert isinstance(result["noisy"], list)


def test_a_second_run_is_a_second_line(result, weights, tmp_path, capsys):
    output = tmp_path / "results.jsonl"
    before = f"{json.dumps(result)}\n"
    output.write_text(before, encoding="utf-8")
    bench_peers.main(arguments(weights, output, "--only", CLIPQ, "--towers", "text", "--no-memory", "--quick"))
    text = output.read_text(encoding="utf-8")
    assert text.startswith(before) and text.count("\n") == 2
    second = json.loads(text.splitlines()[1])
    assert second["runs"] == 3 and {row["batch_size"] for row in second["rows"]} == {1, 8}
    assert "text tower, captions, batch 8" in capsys.readouterr().out


def test_choosing_keeps_the_yardsticks():
    assert chosen() == list(CONTESTANTS)
    assert [one.name for one in chosen(only=["OpenVINO fp32"])] == [CLIPQ, EAGER, "OpenVINO fp32"]
    assert {one.name for one in CONTESTANTS} - {one.name for one in chosen(without=["torch bf16"])} == {"torch bf16"}
    with pytest.raises(UnknownNameError, match="Did you mean 'OpenVINO fp32'"):
        chosen(only=["Openvino fp32"])


def test_a_wrong_name_ends_the_script_with_one_line():
    with pytest.raises(SystemExit, match="unknown architecture 'ViT-B-33'. Did you mean 'ViT-B-32'"):
        bench_peers.main(["--model", "ViT-B-33"])
