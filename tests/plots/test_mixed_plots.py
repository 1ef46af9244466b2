"""The figures of sensitivities and of the front of a search: every number is in them, nothing lies over anything."""

from __future__ import annotations

import pytest
from matplotlib.lines import Line2D
from mixing_helpers import inputs
from plot_helpers import collisions, written
from tiny_models import build

import clipq
from clipq import plots


@pytest.fixture(scope="module")
def found():
    module = build("open_clip CLIP")
    return clipq.sensitivity(module, ("fp16", "int8"), calibration=inputs(module))


@pytest.fixture(scope="module")
def mixture():
    module = build("open_clip CLIP")
    return clipq.mix(module, {"max_size": "2MB"}, candidates=("fp16", "int8"), calibration=inputs(module))


def line(figure, name: str) -> Line2D:
    return next(one for one in figure.findobj(Line2D) if one.get_gid() == name)


def test_there_is_a_dot_for_each_effect_and_a_line_of_noise(found):
    figure = plots.sensitivities(found, "tiny")
    for tower in ("image", "text"):
        for precision in ("fp16", "int8"):
            own = [max(e.kl, 1e-9) for e in found.effects if (e.tower, e.precision) == (tower, precision)]
            assert list(line(figure, f"dots-{tower}-{precision}").get_xdata()) == pytest.approx(own)
    noise = [100 * one.noise for one in found.noise if (one.tower, one.precision) == ("image", "int8")]
    assert list(line(figure, "line-int8").get_ydata()) == pytest.approx(noise)
    text = written(figure)
    for part in ("tiny: what each block suffers", "image tower", "text tower", "fp16", "24 inputs of the text tower"):
        assert part in text.replace("\n", " ")
    assert collisions(figure) == []


def test_a_tower_without_blocks_has_no_noise():
    module = build("open_clip ResNet")
    figure = plots.sensitivities(clipq.sensitivity(module, ("int8",), calibration=inputs(module), towers=["image"]))
    assert len(figure.axes) == 1 and collisions(figure) == []


def test_the_front_is_drawn_and_the_choice_marked(mixture):
    figure = plots.front(mixture, "tiny")
    assert list(line(figure, "front").get_xdata()) == pytest.approx([size / 1e6 for size in mixture.sizes])
    assert line(figure, "chosen").get_xdata()[0] == pytest.approx(mixture.measured["bytes"] / 1e6)
    assert line(figure, "limit").get_xdata()[0] == 2.0
    text = written(figure).replace("\n", " ")
    assert "budget: max_size = 2.00 MB" in text and f"{mixture.measured['cosine']:.4f}" in text
    assert collisions(figure) == []


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_bytes_every_time(found, mixture, tmp_path, suffix):
    for make, what in ((plots.sensitivities, found), (plots.front, mixture)):
        one, other = (plots.save(make(what), tmp_path / f"{i}{suffix}").read_bytes() for i in range(2))
        assert one == other
