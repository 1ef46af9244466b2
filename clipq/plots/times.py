"""Milliseconds an item of a model beside its fp32 self: the figure of `clipq bench`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .saving import check_matplotlib
from .style import (
    BLUE,
    GREY,
    SOFT,
    axes_at,
    caption_height,
    card,
    digits,
    legend,
    machine,
    styled,
    whiskers,
    wrapped_caption,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TOP, _HEIGHT, _LEFT, _GAP = 1.3, 2.3, 0.75, 0.75  # inches
_ITEM = {"image": "an image", "text": "a caption"}


def bench(report: dict[str, Any]) -> Figure:
    """Bars of the median time an item at every batch size, a panel for each tower, fp32 beside the model.

    report: what `clipq.benchmark.benchmark` returned. The whiskers go from the fastest to the slowest sample; below a
    batch size stands how many times faster than fp32 the model is. Axes start at zero.
    Raises `ClipqError` if matplotlib is missing.
    """
    check_matplotlib()
    towers = {tower: _rows(report, tower) for tower in dict.fromkeys(row["tower"] for row in report["rows"])}
    panel = max(3.3, 1.0 * max(map(len, towers.values())))
    width = max(_LEFT + (panel + _GAP) * len(towers) - _GAP + 0.3, 6.2)
    caption = wrapped_caption(width, _caption(report))
    names = _names(report)
    with styled():
        figure = card(width, _TOP + _HEIGHT + 0.75 + caption_height(caption), *_heading(report), _caption(report))
        legend(figure, names, (GREY, BLUE), 0.25, 0.78)
        for place, (tower, rows) in enumerate(towers.items()):
            axes = axes_at(figure, _LEFT + place * (panel + _GAP), _TOP, panel, _HEIGHT)
            _draw(axes, tower, rows)
    return figure


def _rows(report: dict[str, Any], tower: str) -> list[dict[str, Any]]:
    return sorted((row for row in report["rows"] if row["tower"] == tower), key=lambda row: row["batch_size"])


def _draw(axes: Axes, tower: str, rows: Sequence[dict[str, Any]]) -> None:
    for key, colour, shift in (("baseline_ms", GREY, -0.2), ("ms", BLUE, 0.2)):
        times = [{name: value / row["batch_size"] for name, value in row[key].items()} for row in rows]
        places = [i + shift for i in range(len(rows))]
        bars = axes.bar(places, [time["median"] for time in times], 0.38, color=colour, gid=f"bars-{tower}-{key}")
        whiskers(axes, bars, [time["min"] for time in times], [time["max"] for time in times], sideways=False)
        for place, time in zip(places, times, strict=True):
            axes.annotate(digits(time["median"]), (place, time["max"]), (0, 2), **_ABOVE)
    axes.set_title(f"{tower} tower")
    axes.set_ylabel(f"milliseconds {_ITEM.get(tower, 'an item')}")
    axes.set_xlabel("batch size; below it, how many times faster")
    axes.set_xticks(range(len(rows)), [f"{row['batch_size']}\n{row['speedup']:.2f} x" for row in rows])
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.06)
    axes.tick_params(length=0)
    axes.grid(axis="y")


_ABOVE = {"textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 7.5, "color": SOFT}


def _heading(report: dict[str, Any]) -> tuple[str, str]:
    names = _names(report)
    return f"{report['model']['name']}: time of {names[1]} against {names[0]}", _about(report)


def _about(report: dict[str, Any]) -> str:
    found = [f"{row['speedup']:.2f}" for row in report["rows"]]
    least, most = min(found, key=float), max(found, key=float)
    return f"{least} times as fast" if least == most else f"{least} to {most} times as fast, by tower and batch size"


def _names(report: dict[str, Any]) -> tuple[str, str]:
    """What the baseline and the model are called, never the same."""
    own, base = (_precision(report[key]) for key in ("model", "baseline"))
    if report["model"]["name"] != report["baseline"]["name"]:
        base = f"{report['baseline']['name']} ({base})"
    return f"{base}, the baseline" if own == base else base, own


def _precision(model: dict[str, Any]) -> str:
    found = {tower: str(name) for tower, name in model["precision"].items()}
    names = list(dict.fromkeys(found.values()))
    return names[0] if len(names) == 1 else ", ".join(f"{tower} {name}" for tower, name in found.items())


def _caption(report: dict[str, Any]) -> list[str]:
    runs = report["runs"]
    return [
        f"Medians of {runs} samples each, the two models in turns; lines from the fastest to the slowest sample."
        if runs > 1
        else "One sample each.",
        "Captions of mixed lengths; preprocessing and tokenization are not timed.",
        f"{machine(report['model'], report['environment'])}.",
    ]
