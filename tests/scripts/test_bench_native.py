"""The bench of native steps: it builds and measures a small tower, and its table says what was measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import bench_native
import pytest
from result_tables import native_steps

from clipq.native import library

needs_library = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[dict]:
    program = tmp_path_factory.mktemp("bench") / "bench"
    bench_native.build(program)
    options = argparse.Namespace(
        models=["tiny"], path=library.supported_paths(), threads=[1, 2], batches=[1, 3], seconds=0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bench_native.MODELS, "tiny", (64, 256, 2, 2, 8, 32, 1))
        return list(bench_native.measured_steps(program, options))


@needs_library
def test_every_path_and_step_is_measured(runs):
    assert {run["path"] for run in runs} == {*library.supported_paths()}
    tokens, width, hidden = 17, 64, 256
    for run in runs:
        rows, kept = run["batch"] * tokens, run["batch"]  # one row a picture is read after the last block
        assert {name: work for name, (_, _, work) in run["steps"].items()} == {
            "normalize": width * (2 * rows + rows + 2 * kept),
            "quantize": width * (rows + kept),
            "quantize_hidden": hidden * (rows + kept),
            "qkv": width * width * (3 * rows + 2 * rows + kept),
            "out_proj": width * width * (rows + kept),
            "fc1": hidden * width * (rows + kept),
            "fc2": hidden * width * (rows + kept),
            "attention": 2 * width * tokens * (rows + kept),
        }
        assert run["peak_gops"] > 0 and run["copy_gb"] > 0 and run["ms"]["min"] <= run["ms"]["median"]


@needs_library
def test_the_table_has_a_column_for_each_setting_and_its_shares_are_all_of_the_time(runs, tmp_path):
    path = library.best_path()
    lines = [json.dumps(run) for run in runs if run["path"] == path]
    (tmp_path / "native-steps.jsonl").write_text("\n".join(lines), encoding="utf-8")
    text = native_steps.tables(tmp_path)
    assert "| step | 1 thread, batch 1 | 1 thread, batch 3 | 2 threads, batch 1 | 2 threads, batch 3 |" in text
    assert text.count("**tiny.**") == 1
    head, shares = "", 0.0
    for line in text.splitlines()[4:]:
        head, cell = (part.strip() for part in line.split("|")[1:3])
        if "whole" not in head and "of it" not in head and "GB/s" not in head:
            shares += float(cell.split("%")[0].strip())
    assert shares == pytest.approx(100, abs=3)


def test_without_results_the_page_says_so(tmp_path: Path):
    assert native_steps.tables(tmp_path) == "Not measured yet."
