"""What each precision weighs, beside what it costs: a row for each, bars of megabytes and dots of agreement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..description import precision_name
from ..errors import ResultError
from ..evaluation.statistics import proportion_interval
from .style import BLUE, GREY, INK, SOFT, axes_at, digits, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..evaluation.results import Result

_LEFT, _BARS, _GAP, _DOTS = 1.35, 1.45, 0.25, 2.55  # inches
_EACH = 0.42


@dataclass(frozen=True)
class Row:
    """One precision. megabytes: of the weights, None where a result does not say. Shares are in [0, 1]."""

    name: str
    megabytes: float | None
    agreement: float
    interval: tuple[float, float]
    about: str
    colour: str


def rows(result: Result, baseline: Result, others: Iterable[Result]) -> list[Row]:
    """The baseline, what is comparable of `others` (the newest of each model), and the result itself, last."""
    beside = {one.model.get("fingerprint"): one for one in others if _comparable(one, result)}
    beside.pop(result.model["fingerprint"], None)
    first = Row(_name(baseline, baseline), _megabytes(baseline), 1.0, (1.0, 1.0), "by definition", GREY)
    found = [_row(one, baseline, BLUE if one is result else INK) for one in [*beside.values(), result]]
    return [first, *found]


def _comparable(other: Result, result: Result) -> bool:
    """Of the same images, compared with the same baseline."""
    if not other.comparison or not other.baseline:
        return False
    return _identity(other) == _identity(result)


def _identity(result: Result) -> tuple:
    same = result.data.get("digest"), result.comparison.get("n"), result.baseline.get("fingerprint")
    return result.task, result.task_version, *same


def _row(result: Result, baseline: Result, colour: str) -> Row:
    found = result.comparison
    try:
        agreement, drop = float(found["agreement"]), float(found["drop_points"])
        low, high = (float(bound) for bound in found["drop_interval_points"])
        interval = proportion_interval(round(agreement * found["n"]), found["n"])
    except (KeyError, TypeError, ValueError) as error:  # a line may come from anybody
        name = f"{result.model['name']} ({precision_name(result.model)})"
        raise ResultError(f"the comparison of {name}, {result.date}, cannot be drawn: {error!r}") from error
    about = f"top-1 {0.0 - drop:+.2f} points ({0.0 - high:+.2f} to {0.0 - low:+.2f})"
    return Row(_name(result, baseline), _megabytes(result), agreement, interval, about, colour)


def _name(result: Result, baseline: Result) -> str:
    """The precision; with the model where that is another than the baseline's."""
    name = result.model["name"]
    return precision_name(result.model) if name == baseline.model["name"] else f"{name}, {precision_name(result.model)}"


def _megabytes(result: Result) -> float | None:
    count = result.model.get("weight_bytes")
    return count / 1e6 if isinstance(count, int) and 0 <= count < 1e18 else None


def height(found: Sequence[Row]) -> float:
    """Inches that the rows take."""
    return _EACH * len(found) + 0.15


def draw(figure: Figure, found: Sequence[Row], top: float, height: float) -> None:
    """Two panels side by side, with the same rows."""
    left = axes_at(figure, _LEFT, top, _BARS, height)
    _bars(left, found)
    right = axes_at(figure, _LEFT + _BARS + _GAP, top, _DOTS, height)
    _dots(right, found)
    for axes in (left, right):
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)


def _bars(axes: Axes, found: Sequence[Row]) -> None:
    sizes = [row.megabytes or 0.0 for row in found]
    axes.barh(range(len(found)), sizes, 0.5, color=[row.colour for row in found], gid="bars-size")
    largest = max(sizes) or 1.0
    for place, row in enumerate(found):
        text = "not recorded" if row.megabytes is None else f"{digits(row.megabytes)} MB"
        axes.annotate(text, (row.megabytes or 0.0, place), (4, 0), **_BESIDE)
    axes.set_yticks(range(len(found)), [_short(row.name) for row in found])
    axes.set_xlim(0, largest * 1.6)  # room for the number beside the longest bar
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_title("size of the weights")


def _dots(axes: Axes, found: Sequence[Row]) -> None:
    for place, row in enumerate(found):
        low, high = (100 * bound for bound in row.interval)
        axes.hlines(place, low, high, color=row.colour, linewidth=2)
        axes.plot([100 * row.agreement], [place], "o", color=row.colour, markersize=6, gid="dot-agreement")
        axes.text(
            0,
            place - 0.22,
            f"{100 * row.agreement:.2f} %, {row.about}",
            **_ABOVE,
            transform=axes.get_yaxis_transform(),
        )
    lowest = min(100 * row.interval[0] for row in found)
    axes.set_xlim(lowest - 0.06 * (100 - lowest) - 0.02, 100 + 0.04 * (100 - lowest) + 0.02)
    axes.set_yticks([])
    axes.set_xlabel("same first answer, % of the images")
    axes.grid(axis="x")
    axes.set_title("agreement with the baseline")
    axes.locator_params(axis="x", nbins=5)


_BESIDE = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": SOFT}
_ABOVE = {"fontsize": 7.5, "color": SOFT, "va": "bottom"}


def _short(name: str, most: int = 17) -> str:
    name = plain(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"
