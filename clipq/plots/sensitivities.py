"""What each precision does to each block, and how noise grows with depth: the figure of `clipq sensitivity`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .saving import check_matplotlib
from .style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    axes_at,
    caption_height,
    card,
    legend,
    plain,
    styled,
    wrapped_caption,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..mixing.sensitivity import Effect, Noise, Sensitivity

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, GREY)
_TOP, _LEFT, _WIDTH, _GAP, _RIGHT = 1.35, 1.75, 3.0, 0.85, 2.6  # inches
_EACH, _BETWEEN, _LEAST = 0.2, 0.95, 1.4
_FLOOR = 1e-9  # nats: what is less is drawn there
_LETTERS = 24


def sensitivities(found: Sensitivity, name: str = "") -> Figure:
    """A row of two panels for each tower: the divergence that each unit alone causes, and noise by depth.

    found: what `clipq.sensitivity` returned; name: of the model. Raises `ClipqError` if matplotlib is missing.
    """
    check_matplotlib()
    towers = list(dict.fromkeys(one.tower for one in found.effects))
    precisions = list(dict.fromkeys(one.precision for one in found.effects))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(precisions)}
    heights = [max(_LEAST, _EACH * len(_units(found, tower))) for tower in towers]
    width = _LEFT + _WIDTH + _GAP + _RIGHT + 0.3
    lines = wrapped_caption(width, _caption(found))
    height = _TOP + sum(heights) + _BETWEEN * len(heights) + caption_height(lines)
    title = f"{name}: what each block suffers" if name else "What each block suffers"
    with styled():
        figure = card(width, height, title, "one unit at a time in a precision, all else fp32", _caption(found))
        legend(figure, precisions, [colours[one] for one in precisions], 0.25, 0.78)
        top = _TOP
        for tower, tall in zip(towers, heights, strict=True):
            effects = [one for one in found.effects if one.tower == tower]
            _effects(axes_at(figure, _LEFT, top, _WIDTH, tall), tower, effects, _units(found, tower), colours)
            noise = [one for one in found.noise if one.tower == tower]
            if noise:
                _noise(axes_at(figure, _LEFT + _WIDTH + _GAP, top, _RIGHT, tall), noise, colours)
            top += tall + _BETWEEN
    return figure


def _units(found: Sensitivity, tower: str) -> list[str]:
    return list(dict.fromkeys(one.unit for one in found.effects if one.tower == tower))


def _effects(axes: Axes, tower: str, effects: Sequence[Effect], units: list[str], colours: dict[str, str]) -> None:
    for precision, colour in colours.items():
        own = [one for one in effects if one.precision == precision]
        values, places = [max(one.kl, _FLOOR) for one in own], [units.index(one.unit) for one in own]
        axes.plot(values, places, "o", color=colour, markersize=4, gid=f"dots-{tower}-{precision}")
    axes.set_xscale("log")
    axes.set_yticks(range(len(units)), [_short(one) for one in units], fontsize=7.5)
    axes.set_ylim(len(units) - 0.5, -0.5)
    axes.set_xlabel("divergence of the answers, nats")
    axes.set_title(f"{tower} tower")
    axes.tick_params(length=0)
    axes.grid(axis="x")


def _noise(axes: Axes, noise: Sequence[Noise], colours: dict[str, str]) -> None:
    for precision, colour in colours.items():
        own = [one for one in noise if one.precision == precision]
        depths, shares = [one.depth for one in own], [100 * one.noise for one in own]
        axes.plot(depths, shares, "o-", color=colour, markersize=3, linewidth=1.2, gid=f"line-{precision}")
    axes.set_ylim(0, axes.get_ylim()[1])
    axes.set_xlabel("after so many blocks")
    axes.set_ylabel("noise in the residual stream, %")
    axes.set_title("all of the tower in a precision")
    axes.locator_params(axis="x", nbins=6, integer=True)
    axes.tick_params(length=0)
    axes.grid(axis="y")


def _short(name: str) -> str:
    name = plain(name)
    return name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS :]}"


def _caption(found: Sensitivity) -> list[str]:
    counts = " and ".join(f"{count} inputs of the {tower} tower" for tower, count in found.inputs.items())
    return [
        "Left: Kullback-Leibler divergence of the softmax over the nearest answers from fp32's. "
        "Right: length of the error next to the length of the stream.",
        f"Measured on {counts}, without labels.",
    ]
