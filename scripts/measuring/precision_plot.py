"""The plot of docs/precisions.md: the size of every precision against how often its answers are fp32's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from result_tables.accuracy import PRECISIONS_OF, current, precision
from result_tables.markdown import read

from clipq.plots import labels, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT, _TOP = 8.6, 4.85, 1.15  # inches
_LEAST = 0.88  # of the answers: what lies below would press all else together, and is named beside the plot


def precisions(folder: Path) -> Figure:
    """A point for each precision: megabytes of weights, and the share of pictures with fp32's answer."""
    results = current(read(folder / f"{PRECISIONS_OF}.jsonl"))
    points = {precision(one["model"]["precision"]): (_megabytes(one), _same(one)) for one in results}
    shown = {name: point for name, point in points.items() if point[1] >= 100 * _LEAST}
    first = next(one for one in results if precision(one["model"]["precision"]) == "int8")
    title = "Size against agreement: DeiT-Tiny CLIP, both towers in one precision"
    about = f"up: the same first answer as fp32 on more of {first['n']} ImageNet photos; left: smaller"
    with style.styled():
        figure = style.card(_WIDTH, _HEIGHT, title, about, _caption(first, points, set(points) - set(shown)))
        axes = style.axes_at(figure, 0.95, _TOP, 7.2, 2.75)
        axes.set_xlim(0, max(x for x, _ in shown.values()) * 1.1)
        axes.set_ylim(100 * _LEAST, 100.6)
        for name, (x, y) in shown.items():
            colour = style.BLUE if name.startswith("int8") else style.SOFT
            axes.plot([x], [y], "o", color=colour, markersize=7, gid=f"point-{name}")
        labels.label(axes, list(shown.values()), list(shown))
        axes.tick_params(length=0)
        axes.grid()
        axes.set_xlabel("megabytes of weights")
        axes.set_ylabel("same answer as fp32, %")
    return figure


def _megabytes(result: dict[str, Any]) -> float:
    return result["model"]["weight_bytes"] / 1e6


def _same(result: dict[str, Any]) -> float:
    return 100 * result["comparison"]["agreement"]


def _caption(first: dict[str, Any], points: dict[str, tuple[float, float]], left_out: set[str]) -> list[str]:
    below = ", ".join(f"{name} ({x:.1f} MB, {y:.1f} %)" for name, (x, y) in points.items() if name in left_out)
    lines = [f"{style.machine(first['model'], first['environment'])}; {first['date'][:10]}. One photo is 0.2 points."]
    return [*lines, f"Below the plot: {below}."] if below else lines
