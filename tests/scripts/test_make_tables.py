"""The tables of the README, made from result files."""

from __future__ import annotations

import json

import make_tables
import pytest


def test_the_readme_table_comes_from_the_last_line_of_a_result_file(result, tmp_path):
    newest = json.loads(json.dumps(result))
    newest["model"]["name"], newest["weights"] = "ViT-X", "random"
    newest["contestants"][1]["memory"] = {"idle": 100e6, "loaded": 200e6, "peak": 300e6}
    newest["contestants"].append({**newest["contestants"][0], "name": "absent", "status": "skipped", "reason": "why"})
    newest["failures"] = [{"contestant": "broken", "tower": "text", "error": "RuntimeError: no such kernel"}] * 2
    (tmp_path / "peers-x.jsonl").write_text(f"{json.dumps(result)}\n{json.dumps(newest)}\n", encoding="utf-8")
    text = make_tables.peer_tables(tmp_path)
    assert text.startswith("**ViT-X against peers.** Random weights. Milliseconds")
    lines = [line for line in text.splitlines() if line.startswith("| torch fp32 ")]
    assert len(lines) == 3 and all(line.endswith("| 1.00000 | 300 (100) |") for line in lines)
    assert text.count("1.00 x") >= 6
    assert text.endswith("Skipped: absent (why).\n\nFailed: broken, text (RuntimeError: no such kernel).")


def test_tables_change_nothing_but_what_is_between_their_markers(tmp_path):
    assert make_tables.peer_tables(tmp_path) == ""
    text = "before <!-- a -->\nold\n<!-- /a --> between <!-- b --><!-- /b --> after"
    new = make_tables.written(text, {"a": lambda: "1", "b": lambda: "2"})
    assert new == "before <!-- a -->\n1\n<!-- /a --> between <!-- b -->\n2\n<!-- /b --> after"
    assert make_tables.written(new, {"a": lambda: "1", "b": lambda: "2"}) == new
    with pytest.raises(ValueError, match="<!-- c -->"):
        make_tables.written(text, {"c": lambda: "1"})
