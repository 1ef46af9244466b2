"""What measures exports, and its tables."""

from __future__ import annotations

import json
from pathlib import Path

import measure_exports
import torch
from result_tables import exports
from torch.nn.functional import normalize

from clipq.exports.targets import TARGETS


def line(to: str = "onnx", precision: str = "int8", date: str = "2026-01-01", **changes) -> dict:
    speed = {"ms": {"1": 4.0, "8": 2.0}, "clipq_ms": {"1": 2.0, "8": 1.0}}
    return {
        "to": to,
        "precision": precision,
        "date": date,
        "n": 5,
        "classes": 7,
        "graph_bytes": 2_500_000,
        "top1": 0.5,
        "agreement": 1.0,
        "image_cosine": {"mean": 0.9999, "worst": 0.999},
        "export": {"runtime": {to: "1.2"}, "parity": {"image": speed}},
        "environment": {"processor": "a processor", "threads": 2},
        **changes,
    }


def test_answers_are_those_of_the_encoders():
    images, texts = normalize(torch.randn(40, 8), dim=-1), torch.randn(5 * 2, 8)
    ids = torch.arange(10).view(5, 2, 1)
    data = measure_exports.Data(torch.arange(40.0)[:, None], ids, torch.zeros(40, dtype=torch.int64))
    found = measure_exports.answers(data, lambda part: images[part[:, 0].long()], lambda part: texts[part[:, 0]])
    classes = normalize(normalize(texts, dim=-1).view(5, 2, 8).mean(1), dim=-1)
    assert torch.allclose(found.texts, classes)
    assert torch.equal(found.top1, (images @ classes.T).argmax(-1))


def test_the_newest_line_of_each_export_is_shown(tmp_path: Path):
    lines = [line(top1=0.1), line(date="2026-02-01", top1=0.9), line("openvino"), line("tensorrt", "fp8-static")]
    (tmp_path / "exports-deit-clip.jsonl").write_text("\n".join(map(json.dumps, reversed(lines))) + "\n")
    rows = [row for row in exports.tables(tmp_path).splitlines() if row.startswith("| ") and "---" not in row][1:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| ONNX Runtime",
        "| OpenVINO",
        "| TensorRT's graph, in ONNX Runtime",
    ]
    assert "90.0 %" in rows[0]
    assert "4.0 / 2.0" in rows[0]
    assert "4.0 / 2.0" not in rows[2]  # a time in another runtime


def test_every_graph_target_has_a_name_and_is_measured():
    graphs = {name for name, target in TARGETS.items() if target.folder is None}
    assert set(exports.NAMES) == set(measure_exports.ALL) == graphs
