"""What measures drift, and its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import measure_drift
import torch
from result_tables import drift

from clipq.alignment import fit
from clipq.alignment.pairs import Pairs
from clipq.drifting.measuring import Sample, Texts
from clipq.indexes import Index
from clipq.retrieval.search import in_blocks


def sample() -> Sample:
    """240 rows of which both models know all, and 30 texts; the new model adds some noise."""
    old, texts = torch.randn(240, 12), torch.randn(30, 12)
    index = Index(
        Path("old"), "a test", [str(i) for i in range(240)], 12, lambda: (one for _, one in in_blocks(old, 50))
    )
    pairs = Pairs(old + 0.05 * torch.randn(240, 12), old, torch.arange(240), {})
    return Sample(index, "image", pairs, Texts(texts + 0.05 * torch.randn(30, 12), texts))


def of(line: dict[str, Any], precision: str, day: str) -> dict[str, Any]:
    return {**line, "precision": precision, "date": day}


def measured() -> dict[str, Any]:
    whole = sample()
    kept, fitting = measure_drift.parts(240)
    found = fit(whole.pairs.new[fitting], whole.pairs.old[fitting])
    part = Sample(whole.index, "image", whole.pairs.some(kept), whole.texts)
    return {
        "every": measure_drift.numbers(whole, None),
        "aligned": measure_drift.numbers(part, found),
        "grown": measure_drift.grown(whole.pairs.old, whole.pairs.new),
        "environment": {"versions": {"clipq": "1", "torch": "2"}, "processor": "a test", "threads": 1},
    }


def test_what_fits_a_map_is_not_compared():
    kept, fitting = measure_drift.parts(241)
    assert len(kept) == 80 and sorted([*kept.tolist(), *fitting.tolist()]) == list(range(241))


def test_the_newest_line_of_each_precision_is_shown(tmp_path):
    one = measured()
    lines = [
        of(one, "int8", "2026-01-02"),
        of(one, "int4", "2026-01-01"),
        of({**one, "every": None}, "int8", "2026-01-01"),
    ]
    text = "".join(f"{json.dumps(one)}\n" for one in lines)
    (tmp_path / "drift-clipq-tiny.jsonl").write_text(text, encoding="utf-8")
    shown = drift.tables(tmp_path)
    assert shown.startswith("**clipq-tiny, 240 drawings: overlap@10")
    assert shown.count("| int8 |") == shown.count("| int4 |") == 2
    assert "Where a share of the rows is of int8" in shown
    grown = lines[0]["grown"]
    assert grown[0]["old"][0] > grown[-1]["old"][0] and grown[0]["new"][0] < 1
    assert "A map fitted on 160 of them, compared on the other 80" in shown
    value, low, high = lines[0]["every"]["searches"][0]["overlap"]["10"]
    assert f"{100 * value:.1f} % ({100 * low:.1f}&ndash;{100 * high:.1f})" in shown
    assert drift.tables(tmp_path / "none") == ""


def test_memory_over_a_long_index(tmp_path):
    found = measure_drift.long_index(3000, 16, tmp_path)
    assert found["rows"] == 3000 and found["queries"] == 2000 and found["peak_mb"] >= found["peak_mb_before"] > 0
    assert measure_drift.shown(found).startswith("3000 rows: ")
    (tmp_path / "drift-rows.jsonl").write_text(json.dumps(found) + "\n", encoding="utf-8")
    assert "3,000 rows of width 16" in drift.tables(tmp_path)
