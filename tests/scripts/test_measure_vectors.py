"""What measures the recall of vectors, and its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import measure_vectors
import numpy
import torch
from result_tables import vectors

from clipq.vectors import ranges_of


def search(alike: bool = True) -> measure_vectors.Search:
    rows = torch.nn.functional.normalize(torch.randn(200, 24))
    asked = rows if alike else torch.nn.functional.normalize(torch.randn(50, 24))
    ranges = ranges_of(rows, {}, "a test")
    return measure_vectors.Search(rows, asked, ranges, ranges, alike)


def test_signs_multiply_as_hamming_distances_do():
    codes = torch.randint(0, 256, (20, 3), dtype=torch.uint8)
    bits = numpy.unpackbits(codes.numpy(), axis=1)
    distances = (bits[:, None] != bits[None]).sum(-1)
    signs = measure_vectors.signs(codes)
    assert numpy.array_equal((signs @ signs.T).numpy(), 24 - 2 * distances)


def test_exact_search_finds_all_and_never_the_query_itself():
    for one in (search(), search(alike=False)):
        assert measure_vectors.recall(one.as_they_are("float32"), one.exact()) == 1
        assert measure_vectors.recall(one.rescored("ubinary", 199, "float32"), one.exact()) == 1
        rows = list(measure_vectors.measured(one))
        assert [row["way"] for row in rows] == [*measure_vectors.WAYS]
        found = {row["way"]: row["recall"] for row in rows}
        assert found["float16"] > found["int8"] > found["ubinary"] > 10 / 200
        assert {row["dtype"]: row["bytes"] for row in rows}["ubinary"] == 3
    assert not (search().exact() == torch.arange(200)[:, None]).any()


def line(day: str, fingerprint: str, recall: float, **changes: Any) -> dict[str, Any]:
    row = {"bytes": 24, "recall": recall, "ranges": "clipq's"}
    return {
        "date": f"2026-01-{day}",
        "offset": 0.0,
        "set": "drawings",
        "queries": "image",
        "k": 10,
        "width": 192,
        "n": 7,
        "n_queries": 5,
        "environment": {"versions": {"clipq": "0.4.0"}},
        "model": {"fingerprint": fingerprint, "precision": {"image": "int8", "text": "int8"}},
        "rows": [{**row, "way": way, "ranges": own} for own in ("c", "the set itself") for way in measure_vectors.WAYS],
        **changes,
    }


def write(folder: Path, lines: list[dict[str, Any]]) -> Path:
    text = "".join(f"{json.dumps(one)}\n" for one in lines)
    (folder / "vectors-clipq-tiny.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_the_newest_line_of_the_newest_model_is_shown(tmp_path):
    assert vectors.tables(tmp_path) == ""
    lines = [line("02", "new", 0.5), line("03", "new", 0.6), line("01", "old", 0.7, queries="text")]
    shown = vectors.tables(write(tmp_path, [*lines, line("04", "new", 0.8, offset=1.0)]))
    assert "| ubinary | 24 | 60.0 % |" in shown and "| ubinary, ranges of the set | 24 | 60.0 % |" in shown
    assert not any(other in shown for other in ("50.0 %", "70.0 %", "80.0 %", "drawings by names"))
    assert "**clipq-tiny in int8: recall@10.** Width 192; queries by rows: 5 by 7; clipq 0.4.0." in shown
