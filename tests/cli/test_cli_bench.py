"""`clipq bench`: a model against its fp32 self."""

from __future__ import annotations

import json

import pytest

from clipq import benchmark
from clipq.cli import main, show


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
