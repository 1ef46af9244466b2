"""The figure of `clipq bench`: bars as high as the medians, lines as long as the ranges, everything said."""

from __future__ import annotations

from copy import deepcopy

import pytest
from matplotlib.collections import LineCollection
from plot_helpers import bars, collisions, written

from clipq import plots


@pytest.mark.parametrize("key", ["ms", "baseline_ms"])
def test_there_is_a_bar_of_the_median_for_each_row(report, key):
    figure = plots.bench(report)
    for axes, tower in zip(figure.axes, ("image", "text"), strict=True):
        rows = [row for row in report["rows"] if row["tower"] == tower]
        found = bars(figure, f"bars-{tower}-{key}")
        assert [bar.get_height() for bar in found] == pytest.approx([r[key]["median"] / r["batch_size"] for r in rows])
        assert axes.get_ylim()[0] == 0
        ranges = [line.get_segments()[0][:, 1].tolist() for line in axes.findobj(LineCollection)]
        for row in rows:
            ends = [row[key][end] / row["batch_size"] for end in ("min", "max")]
            assert any(ends == pytest.approx(one) for one in ranges)


def test_it_says_what_how_and_where(report):
    text = written(plots.bench(report))
    for part in (
        "ViT-B-32: time of int8 against fp32",
        "milliseconds an image",
        "milliseconds a caption",
        "batch size",
    ):
        assert part in text
    machine, kernel = report["environment"], report["model"]["kernel_path"]
    for part in (f"Medians of {report['runs']} samples", machine["processor"], f"kernel path {kernel}", "clipq 0."):
        assert part in text.replace("\n", " ")  # the caption's lines end where they are full
    for row in report["rows"]:
        assert f"{row['batch_size']}\n{row['speedup']:.2f} x" in text


def test_nothing_lies_over_anything(report):
    assert collisions(plots.bench(report)) == []


def test_many_batch_sizes_in_any_order_and_one_tower(report):
    row = next(row for row in report["rows"] if row["tower"] == "image")
    sizes = [512, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    report["rows"] = [{**row, "batch_size": size} for size in sizes]
    figure = plots.bench(report)
    assert len(figure.axes) == 1 and len(bars(figure, "bars-image-ms")) == 10
    labels = [label.get_text().split("\n")[0] for label in figure.axes[0].get_xticklabels()]
    assert labels == [str(size) for size in sorted(sizes)]
    assert collisions(figure) == []


def test_two_models_of_one_precision_have_two_names(report):
    same = deepcopy(report)
    same["model"]["precision"] = {"image": "fp32", "text": "fp32"}
    assert "time of fp32 against fp32, the baseline" in written(plots.bench(same))
    same["baseline"]["name"], same["runs"] = "other", 1
    text = written(plots.bench(same))
    assert "time of fp32 against other (fp32)" in text and "One sample each." in text
    report["model"]["precision"] = {"image": "int8", "text": "fp16"}
    assert "time of image int8, text fp16 against fp32" in written(plots.bench(report))


def test_what_lies_over_something_is_found(report):
    figure = plots.bench(report)
    figure.text(*figure.texts[0].get_position(), "over the title", va="top")
    figure.text(0.99, 0.5, "beyond the edge")
    found = collisions(figure)
    assert any("over the title" in one for one in found) and "outside: beyond the edge" in found
