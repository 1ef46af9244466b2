"""The tables of the front page and its neighbours, made from result files."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_tables
import pytest
from result_tables import accuracy, peer_pages, runs

Line = dict[str, Any]


@pytest.fixture
def run(result) -> Callable[..., Line]:
    """A run against peers that was really made, with another version, day, kernel or model."""

    def run(
        version: str = "0.3.0", day: str = "2026-01-01", kernel: str = "native/avx2", model: str = "ViT-B-32"
    ) -> Line:
        line = copy.deepcopy(result)
        line["environment"]["versions"]["clipq"] = version
        line["environment"]["features"] = [kernel]
        line["date"] = f"{day}T00:00:00+00:00"
        line["model"] |= {"name": model, "kernel_path": kernel}
        return {**line, "weights": "random", "noisy": []}

    return run


def write(folder: Path, **files: list[Line]) -> Path:
    for name, lines in files.items():
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / f"{name.replace('_', '-')}.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_the_pages_are_what_the_results_say():
    assert [*make_tables.stale()] == [], "run python scripts/measuring/make_tables.py"
    assert {*make_tables.PAGES} == {
        "README.md",
        "eval/SPEED.md",
        "eval/README.md",
        "docs/precisions.md",
        "docs/runtime.md",
        "docs/drift.md",
        "docs/engines.md",
        "docs/exports.md",
        "docs/use-it-with.md",
    }


def test_a_table_has_memory_and_says_who_is_missing(run, tmp_path):
    line = run(model="ViT-X")
    line["contestants"][1]["memory"] = {"idle": 100e6, "loaded": 200e6, "peak": 300e6}
    line["contestants"].append({**line["contestants"][0], "name": "absent", "status": "skipped", "reason": "why"})
    line["failures"] = [{"contestant": "broken", "tower": "text", "error": "RuntimeError: no such kernel"}] * 2
    text = peer_pages.pages(write(tmp_path, peers_x=[line]))
    assert "### ViT-X\n\nRandom weights. Milliseconds an item (range)" in text
    lines = [line for line in text.splitlines() if line.startswith("| torch fp32 ")]
    assert len(lines) == 3 and all(line.endswith("| 1.00000 | 300 (100) |") for line in lines)
    assert text.count("1.00 x") >= 6
    assert "\n\nSkipped: absent (why).\n\nFailed: broken, text (RuntimeError: no such kernel).\n\n" in text


def test_the_newest_version_of_each_processor_and_model_is_shown(run, tmp_path):
    vnni = "native/avx512_vnni"
    older = {**run("0.9.0", "2026-05-05", vnni), "commit": "abc1234", "machine": "a quiet one"}
    write(tmp_path, peers_a=[run("0.10.0", "2026-02-02", vnni), run("0.8.0", "2026-03-03")], peers_b=[older])
    text = peer_pages.pages(tmp_path)
    first, second = text.split("\n## ")
    assert ", AVX512-VNNI, 1 threads" in first.splitlines()[0] and ", AVX2, 1 threads" in second.splitlines()[0]
    assert first.count("### ViT-B-32") == 1 and "clipq 0.10.0 on 2026-02-02" in first
    assert "clipq int8 0.9.0 on 2026-05-05, commit abc1234, a quiet one, in ms an item: images " in first
    assert "clipq 0.8.0 on 2026-03-03" in second and "Another run" not in second


def test_the_short_table_has_the_best_of_each_library_and_names_it(run, tmp_path):
    line = run()
    for row in line["rows"]:
        row["batch_size"] = {1: 1, 2: 32}[row["batch_size"]]
    own = [row for row in line["rows"] if row["contestant"] == runs.CLIPQ]
    for name, factor in (("OpenVINO fp32", 4.0), ("OpenVINO static int8", 2.0), ("ONNX Runtime fp32", 3.0)):
        for row in own:
            times = {key: factor * value for key, value in row["ms"].items()}
            line["rows"].append({**row, "contestant": name, "ms": times, "ratio": factor})
    table = peer_pages.short_table(write(tmp_path, peers_x=[line]))
    cells = {part[1].strip(): part[2:-1] for part in (text.split("|") for text in table.splitlines()) if len(part) > 3}
    assert [*cells][2:] == ["clipq int8", "torch fp32", "torch bf16", "ONNX Runtime", "OpenVINO"]
    assert all("(2.0 x), static int8; 0." in cell for cell in cells["OpenVINO"])
    assert all("(3.0 x), fp32; 0." in cell for cell in cells["ONNX Runtime"])
    assert all(cell.strip().startswith("**") for cell in cells["clipq int8"])
    assert "not quiet" not in table
    assert peer_pages.short_table(tmp_path, "ViT-Z") == "No run of ViT-Z in eval/results yet."
    noisy = peer_pages.short_table(write(tmp_path, peers_x=[{**line, "noisy": ["image tower: 30 %"]}]))
    assert noisy.endswith("The machine was not quiet.")


def test_who_was_set_up_wrongly_is_in_no_table_but_in_a_sentence(run):
    line = run()
    for row in line["rows"]:
        if row["contestant"] == "torch bf16":
            row["ms"] = dict.fromkeys(row["ms"], 1000000.0)
    shown = runs.without_wrong_set_ups(line)
    assert {row["contestant"] for row in shown["rows"]} == {"clipq int8", "torch fp32"}
    (sentence,) = peer_pages.absent(shown)
    assert sentence.startswith("Skipped: torch bf16 (left out: ") and "our setting of it" in sentence


def answers(day: str, origin: str, precision: str, top1: float) -> Line:
    comparison = {
        "drop_points": 1.0,
        "drop_interval_points": [-1.0, 2.0],
        "agreement": 0.99,
        "image_cosine": {"mean": 0.9999},
        "text_cosine": {"mean": 0.9998},
        "baseline_metrics": {"top1": top1 + 0.01},
    }
    return {
        "n": 100,
        "n_classes": 10,
        "date": f"2026-01-{day}T00:00:00+00:00",
        "model": {"precision": {"image": precision, "text": precision}, "kernel_path": "native/avx2"},
        "baseline": {"fingerprint": origin},
        "metrics": {"top1": top1},
        "comparison": comparison,
        "environment": {"versions": {"clipq": "0.3.0", "torch": "2"}, "processor": "P", "threads": 1},
    }


def test_the_newest_line_of_each_precision_of_the_newest_model_counts(tmp_path):
    old = [answers("01", "old", name, 0.3) for name in ("int8", "fp16")]
    new = [answers("03", "new", "int8", 0.6), answers("02", "new", "int8", 0.5), answers("02", "new", "bf16", 0.7)]
    write(tmp_path, clipq_tiny_drawings=[*old, *new], clipq_tiny_other=[answers("04", "new", "int8", 0.9)])
    shown, missing = accuracy.tasks(tmp_path)
    found = [(one["model"]["precision"]["image"], one["metrics"]["top1"]) for one in shown["clipq-tiny-drawings"]]
    assert sorted(found) == [("bf16", 0.7), ("int8", 0.6)] and not missing
    short = accuracy.short_table(tmp_path)
    assert "| 100 | 10 | 61.0 % | 60.0 % | 1.00 (-1.00 to 2.00) | 99.0 % | 0.99990 |" in short
    assert "70.0 %" not in short and "| clipq-tiny-other | 100 | 10 | 91.0 % | 90.0 % |" in short
    full = accuracy.full_tables(tmp_path)
    assert "| bf16 | 70.0 % |" in full and "30.0 %" not in full


def test_results_of_a_model_that_was_replaced_are_not_shown_but_missed(tmp_path):
    write(tmp_path, clipq_tiny_drawings=[answers("01", "old", "int8", 0.3)])
    write(tmp_path, clipq_tiny_imagenet_photos=[answers("02", "new", "int8", 0.7)])
    write(tmp_path, deit_clip_imagenet_photos=[answers("01", "another", "int8", 0.8)])
    short, full = accuracy.short_table(tmp_path), accuracy.full_tables(tmp_path)
    assert "80.0 %" in full and "80.0 %" not in short, "the front page shows the embedded model where it can"
    for text in (short, full):
        assert "70.0 %" in text and "30.0 %" not in text
        assert text.endswith(f"Not measured yet with the model as it is now: {accuracy.title('clipq-tiny-drawings')}.")


def test_tables_change_nothing_but_what_is_between_their_markers(tmp_path):
    assert peer_pages.pages(tmp_path) == ""
    text = "before <!-- a -->\nold\n<!-- /a --> between <!-- b --><!-- /b --> after"
    sections = {"a": lambda folder: "1", "b": lambda folder: "2"}
    new = make_tables.written(text, sections)
    assert new == "before <!-- a -->\n1\n<!-- /a --> between <!-- b -->\n2\n<!-- /b --> after"
    assert make_tables.written(new, sections) == new
    with pytest.raises(ValueError, match="<!-- c -->"):
        make_tables.written(text, {"c": lambda folder: "1"})
