"""The README's plots: they are what the script makes of eval/results, and say no more than was measured."""

from __future__ import annotations

import json
import sys

import make_plots
import pytest
from plot_helpers import bars, collisions, written


@pytest.fixture(scope="module")
def result() -> dict:
    return make_plots.measured()


def test_the_committed_plots_are_those_of_the_committed_results():
    assert make_plots.changed() == []


@pytest.mark.parametrize("name", ["speed.svg", "fidelity.svg", "precisions.svg"])
def test_a_committed_plot_is_small_and_whole(name):
    content = (make_plots.PLOTS / name).read_text(encoding="utf-8")
    assert len(content.encode()) <= 40_000 and "nan" not in content.lower()
    assert "<image" not in content and len(make_plots.texts(content)) > 20


def test_a_plot_that_says_something_else_is_found(tmp_path):
    for name in ("speed.svg", "fidelity.svg", "precisions.svg"):
        (tmp_path / name).write_text((make_plots.PLOTS / name).read_text(encoding="utf-8"), encoding="utf-8")
    assert make_plots.changed(tmp_path) == []
    speed = tmp_path / "speed.svg"
    speed.write_text(speed.read_text(encoding="utf-8").replace(">clipq int8<", ">clipq<"), encoding="utf-8")
    assert make_plots.changed(tmp_path) == ["speed.svg"]


@pytest.mark.parametrize(("changed", "code"), [([], 0), (["speed.svg"], None)])
def test_the_check_ends_with_a_code(monkeypatch, changed, code):
    monkeypatch.setattr(sys, "argv", ["make_plots.py", "--check"])
    monkeypatch.setattr(make_plots, "changed", lambda: changed)
    with pytest.raises(SystemExit) as done:
        make_plots.main()
    assert done.value.code == code if code is not None else "speed.svg; run python" in done.value.code


def test_every_family_has_a_bar_of_its_fastest_from_zero(result):
    figure = make_plots.speed(result)
    widths = [bar.get_width() for bar in bars(figure, "bars")]
    expected = []
    for tower, kind, size, _ in make_plots._PANELS:
        rows = make_plots.rows_of(result, tower, kind, size)
        for family in make_plots.FAMILIES:
            medians = [row["ms"]["median"] / size for row in rows if row["contestant"].startswith(family)]
            expected.append(min(medians))
    assert widths == pytest.approx(expected)
    assert all(axes.get_xlim()[0] == 0 for axes in figure.axes)


def test_every_contestant_is_a_point_at_its_time_and_cosine(result):
    figure = make_plots.fidelity(result)
    for axes, (tower, kind) in zip(figure.axes, (("image", "images"), ("text", "captions")), strict=True):
        rows = make_plots.rows_of(result, tower, kind, 32)
        points = {line.get_gid(): line.get_xydata()[0].tolist() for line in axes.lines}
        assert len(points) == len(rows)
        for row in rows:
            x, y = points[f"point-{row['contestant'].replace(' ', '-')}"]
            assert x == pytest.approx(row["ms"]["median"] / 32)
            assert y == pytest.approx(max(3e-6, 1 - row["cosine"]["mean"]))
            low, high = sorted(axes.get_ylim())
            assert low < y < high and 0 < x < axes.get_xlim()[1]
            assert row["contestant"] in written(figure)


def test_nothing_lies_over_anything_and_the_machine_is_said(result):
    for name, figure in make_plots.figures().items():
        assert collisions(figure) == []
        if name == "precisions.svg":  # of another model, with real weights
            continue
        text = written(figure).replace("\n", " ")
        for part in (
            result["environment"]["processor"],
            result["model"]["kernel_path"],
            result["date"][:10],
            "Random weights",
        ):
            assert part in text


def test_the_newest_run_of_the_model_counts(result, tmp_path):
    newer = {**result, "date": "2999-01-01T00:00:00+00:00", "noisy": ["very"]}
    other = {**newer, "date": "3000-01-01T00:00:00+00:00", "model": {**result["model"], "name": "another"}}
    (tmp_path / "peers-x.jsonl").write_text("\n".join(map(json.dumps, (newer, result, other))), encoding="utf-8")
    found = make_plots.measured(tmp_path)
    assert found["date"] == newer["date"]
    assert "The machine was not quiet." in written(make_plots.speed(found)).replace("\n", " ")
    (tmp_path / "peers-x.jsonl").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(ValueError, match="has no run of ViT-B-32"):
        make_plots.measured(tmp_path)


def test_every_precision_is_a_point_at_its_size_or_named_below():
    results = make_plots.RESULTS / "deit-clip-imagenet-photos-7.jsonl"
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    lines = {line["model"]["precision"]["image"]: line for line in lines}.values()  # the newest of each
    figure = make_plots.precisions(make_plots.RESULTS)
    points = {line.get_gid(): (line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines}
    said = written(figure)
    for line in lines:
        name, same = line["model"]["precision"]["image"], 100 * line["comparison"]["agreement"]
        if same >= 88:
            assert points[f"point-{name}"] == pytest.approx((line["model"]["weight_bytes"] / 1e6, same))
        assert name in said
