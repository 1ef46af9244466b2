"""The figure of `clipq eval`: sizes, agreement, cosines and the pictures whose answers changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.image import AxesImage
from plot_helpers import bars, collisions, written

from clipq import plots
from clipq.errors import DataError, ResultError, UnknownNameError
from clipq.evaluation.statistics import proportion_interval
from clipq.plots import cosines, costs


def drawn(pair, task, pictures, changed, **options):
    own, base = pair(changed)
    return plots.evaluation(own, base, task=task, data=pictures, **options)


@pytest.mark.parametrize(("changed", "shown"), [(0, 0), (1, 1), (5, 5), (12, 12), (13, 12), (24, 12)])
def test_at_most_a_dozen_pictures_are_shown(pair, task, pictures, changed, shown):
    figure = drawn(pair, task, pictures, changed)
    found = figure.findobj(AxesImage)
    assert len(found) == shown and all(max(image.get_array().shape) <= 96 for image in found)
    text = written(figure)
    if changed:
        assert f"changed on {changed} of 24 images: {changed} lost, 0 gained, 0 wrong before and after" in text
        assert text.count("truth") == shown and ("; 12 of them" in text) == (changed > 12)
    else:
        assert "The first answer is the same on all 24 images." in text
    assert collisions(figure) == []


def test_a_picture_has_its_truth_and_both_answers(pair, task, pictures):
    figure = drawn(pair, task, pictures, 1)
    texts = [text.get_text() for text in figure.texts]
    at = texts.index("truth")
    first, second, third = texts[at + 1], texts[at + 3], texts[at + 5]
    assert texts[at + 2] == "fp32" and texts[at + 4] == "int8"
    assert first.startswith("a blue that") and first.endswith("…") and "$5" in first
    assert second.endswith("✓") and third == "green"


def test_sizes_and_agreement_are_those_of_the_results(pair, task, pictures):
    figure = drawn(pair, task, pictures, 6)
    assert [bar.get_width() for bar in bars(figure, "bars-size")] == [8.0, 2.0]
    dots = [line.get_xdata()[0] for line in figure.axes[1].lines if line.get_gid() == "dot-agreement"]
    assert dots == pytest.approx([100, 75])
    text = written(figure).replace("\n", " ")
    assert "8.00 MB" in text and "2.00 MB" in text
    assert "75.00 %, top-1 -25.00 points (" in text
    for part in ("n = 24", "Wilson", "Tango", "a processor, 2 threads", "torch 2.0", "Top-1 100.00 % to 75.00 %"):
        assert part in text


def test_the_interval_is_wilsons(pair):
    own, base = pair(6)
    _, row = costs.rows(own, base, ())
    assert row.interval == proportion_interval(18, 24)


def test_comparable_results_of_a_file_are_drawn_beside(pair, task, pictures):
    own, base = pair(2)
    older, other = pair(4)[0], pair(3, fingerprint="w", precision={"image": "int8", "text": "fp16"})[0]
    unlike = replace(other, data={"digest": "of other data"})
    alone = replace(other, comparison=None, baseline=None)
    rows = costs.rows(own, base, [older, unlike, other, alone, own])
    assert [(row.name, round(24 * row.agreement)) for row in rows] == [("fp32", 24), ("int8/fp16", 21), ("int8", 22)]
    del other.model["weight_bytes"]  # of an older clipq
    figure = plots.evaluation(own, base, task=task, data=pictures, others=[other])
    assert len(bars(figure, "bars-size")) == 3 and "not recorded" in written(figure)
    assert collisions(figure) == []


@pytest.mark.parametrize("damage", [{"agreement": "much"}, {"drop_interval_points": [1]}, {"agreement": None}])
def test_a_made_up_comparison_is_refused(pair, damage):
    own, base = pair(2)
    forged = pair(3, fingerprint="f")[0]
    forged.comparison.update(damage)
    with pytest.raises(ResultError, match=r"the comparison of m \(int8\), .* cannot be drawn"):
        costs.rows(own, base, [forged])


def test_histograms_hold_every_embedding(pair, task, pictures):
    figure = drawn(pair, task, pictures, 6)
    axes = figure.axes[2]
    names = {patch.get_gid(): patch for patch in axes.patches}
    assert set(names) == {"histogram-images", "histogram-class-texts"}
    text = written(figure)
    assert "images, n = 24, median 1" in text and "class texts, n = 3, median 0.999991" in text
    for patch in names.values():
        heights = patch.get_xy()[:, 1]
        assert heights.max() in (pytest.approx(75), pytest.approx(100)) and heights.min() == 0
    low, high = sorted(axes.get_xlim())
    assert low <= cosines._NEAREST and high >= 0.98  # the changed ones have cosine 0.02


@pytest.mark.parametrize(
    ("cosine", "text"),
    [(1.0, "1"), (1 - 1e-9, "1"), (0.99992, "0.99992"), (0.5, "0.5"), (0.999, "0.999"), (0.9, "0.9"), (-0.2, "-0.2")],
)
def test_a_cosine_has_the_digits_that_tell_it_from_one(cosine, text):
    assert cosines.shown(cosine) == text


@pytest.mark.parametrize("low", [1e-8, 3e-7, 2e-5, 1e-3, 0.2])
@pytest.mark.parametrize("factor", [1, 3, 10, 1000, 1e8])
def test_ticks_are_few_and_all_different(low, factor):
    edges = cosines._edges([low, min(2.0, low * factor)])
    assert edges[0] <= low * 1.001 and edges[-1] >= min(2.0, low * factor) * 0.999
    ticks = [cosines.shown(1 - tick) for tick in cosines._ticks(edges[0], edges[-1])]
    assert 2 <= len(ticks) <= 5 and len(set(ticks)) == len(ticks)


@pytest.mark.parametrize("distance", [1e-8, 1e-7, 2e-7, 1e-5, 3e-4, 1.0])
def test_the_last_tick_is_inside_the_figure(pair, task, pictures, monkeypatch, distance):
    monkeypatch.setattr(cosines, "distances", lambda own, base: [distance, 10 * distance])
    assert collisions(drawn(pair, task, pictures, 0)) == []


def test_what_does_not_belong_together_is_refused(pair, task, pictures, tmp_path):
    own, base = pair(2)
    with pytest.raises(ResultError, match="without per-image answers"):
        plots.evaluation(replace(own, answers=None), base, task=task, data=pictures)
    with pytest.raises(UnknownNameError, match="unknown task 't'"):
        plots.evaluation(own, base, data=pictures)
    with pytest.raises(DataError, match="ships no data"):
        plots.evaluation(own, base, task=task)
    with pytest.raises(ResultError, match="are not those that were evaluated"):
        plots.evaluation(replace(own, limit=3), base, task=task, data=pictures)
    other = replace(base, answers=replace(base.answers, digest="other"))
    with pytest.raises(ResultError, match="cannot compare"):
        plots.evaluation(own, other, task=task, data=pictures)
