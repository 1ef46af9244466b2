"""Names beside points, each where it hides no other name and no point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.transforms import Bbox

_PLACES = [
    ((7, 0), "left", "center"),
    ((-7, 0), "right", "center"),
    ((0, 7), "center", "bottom"),
    ((0, -7), "center", "top"),
    ((6, 9), "left", "bottom"),
    ((6, -9), "left", "top"),
    ((-6, 9), "right", "bottom"),
    ((-6, -9), "right", "top"),
]
"""Points to the right and up, and which side of the text lies there; the first that is free is taken."""


def label(axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str], size: float = 8) -> None:
    """Write each name beside its point; the limits of the axes have to be final."""
    renderer = _renderer(axes)
    taken = [_around(axes, point) for point in points]
    for at, (point, name) in enumerate(zip(points, names, strict=True)):
        others = taken[:at] + taken[at + 1 :]
        taken.append(_write(axes, point, name, size, renderer, others))


def _renderer(axes: Axes) -> RendererAgg:
    """What measures texts; a figure of its own canvas knows no sizes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return FigureCanvasAgg(axes.figure).get_renderer()


def _around(axes: Axes, point: tuple[float, float], radius: float = 5.0) -> Bbox:
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform(point)
    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _write(
    axes: Axes, point: tuple[float, float], name: str, size: float, renderer: RendererAgg, taken: Sequence[Bbox]
) -> Bbox:
    """The box of the text, at the first place that is free and inside the panel, else at the one that hides least."""
    text = axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=size, color=INK)
    inside, found = axes.get_window_extent(renderer), []
    for order, (offset, side, edge) in enumerate(_PLACES):
        text.set(position=offset, ha=side, va=edge)
        box = text.get_window_extent(renderer)
        hidden = sum(_overlap(box, other) for other in taken) + 5 * (box.width * box.height - _overlap(box, inside))
        found.append((round(hidden, 3), order))
        if hidden <= 0:
            break
    offset, side, edge = _PLACES[min(found)[1]]
    text.set(position=offset, ha=side, va=edge)
    return text.get_window_extent(renderer)


def _overlap(one: Bbox, other: Bbox) -> float:
    from matplotlib.transforms import Bbox

    both = Bbox.intersection(one, other)
    return 0.0 if both is None else both.width * both.height
