"""What the tests of plots read in a figure: its texts, its bars and points, and what lies over what."""

from __future__ import annotations

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def written(figure: Figure) -> str:
    """All texts of a figure, one a line."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_text())


def bars(figure: Figure, name: str) -> list[Rectangle]:
    """The bars that were drawn as `name`."""
    return [bar for bar in figure.findobj(Rectangle) if bar.get_gid() == name]


def collisions(figure: Figure) -> list[str]:
    """Texts that lie over each other or leave the figure, as the renderer places them."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # before that, labels of axes have no place
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in _shown(figure)]
    page = figure.bbox.padded(1)
    found = [f"outside: {text}" for text, box in boxes if not page.contains(*box.min) or not page.contains(*box.max)]
    pairs = [(one, other) for one, other in combinations(boxes, 2) if _overlap(one[1], other[1])]
    return [*found, *(f"{one[0]!r} over {other[0]!r}" for one, other in pairs)]


def _shown(figure: Figure) -> list[Text]:
    """Texts that are drawn; there are also labels of ticks beyond the ends of an axis, which are not."""
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                beyond |= {tick.label1, tick.label2}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in texts if text not in beyond]


def _overlap(one: Bbox, other: Bbox) -> bool:
    both = Bbox.intersection(one, other)
    return both is not None and both.width > 1 and both.height > 1
