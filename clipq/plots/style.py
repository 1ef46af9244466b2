"""How every figure looks: settings, colours, and places in inches from the top left, so that nothing overlaps."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure
    from matplotlib.text import Text

INK, SOFT, RULE = "#1a1a1a", "#595959", "#c8c8c8"
GREY, BLUE, ORANGE, GREEN, PURPLE = "#9a9a9a", "#0072b2", "#e69f00", "#009e73", "#cc79a7"
"""Of Okabe and Ito's palette, which colour-blind people can tell apart (jfly.uni-koeln.de/color, 2008)."""

_MARGIN = 0.25  # inches on every side
_CHARACTER = 0.0071  # inches of a character's width for each point of its size, on the wide side
_SETTINGS = {
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],  # the first comes with matplotlib; browsers have the others
    "text.color": INK,
    "text.parse_math": False,  # class names may hold dollars
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelcolor": SOFT,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "svg.fonttype": "none",  # text stays text: small, and it can be searched and read aloud
    "svg.hashsalt": "clipq",  # the same bytes every time
}


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib's defaults with this house's settings, whatever the user's are; those are back afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def card(width: float, height: float, title: str, about: str, caption: Sequence[str]) -> Figure:
    """A white figure (readable on a dark page too) of `width` x `height` inches: what it shows, and where it is from.

    about: one line under the title. caption: sentences at the foot, wrapped to the width.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", label=plain(title))
    write(figure, title, _MARGIN, 0.22, size=12, weight="bold")
    write(figure, about, _MARGIN, 0.49, colour=SOFT)
    lines = wrapped_caption(width, caption)
    write(figure, "\n".join(lines), _MARGIN, height - caption_height(lines) + 0.08, size=7.5, colour=SOFT)
    return figure


def wrapped_caption(width: float, caption: Sequence[str]) -> list[str]:
    """The lines that a caption takes in a figure of `width` inches."""
    return textwrap.wrap(" ".join(caption), int((width - 2 * _MARGIN) / (_CHARACTER * 7.5)))


def caption_height(lines: Sequence[str]) -> float:
    """Inches at the foot of a figure."""
    return 0.2 + 0.145 * len(lines)


def write(figure: Figure, text: str, left: float, top: float, size: float = 9, colour: str = INK, **options) -> Text:
    """Text that begins `left` and `top` inches from the upper left corner."""
    width, height = figure.get_size_inches()
    options = {"va": "top", "linespacing": 1.35, "fontsize": size, "color": colour, **options}
    return figure.text(left / width, 1 - top / height, plain_lines(text), **options)


def axes_at(figure: Figure, left: float, top: float, width: float, height: float, **options) -> Axes:
    """Axes whose frame lies there; all in inches, from the upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down), **options)


def legend(figure: Figure, names: Sequence[str], colours: Sequence[str], left: float, top: float) -> None:
    """Names beside patches of their colours, in one line."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    for name, colour in zip(names, colours, strict=True):
        place, size = (left / width, 1 - (top + 0.12) / height), (0.12 / width, 0.12 / height)
        figure.add_artist(Rectangle(place, *size, color=colour, transform=figure.transFigure))
        write(figure, name, left + 0.18, top + 0.11, size=8.5, va="baseline")
        left += 0.45 + _CHARACTER * 8.5 * len(name)


def whiskers(axes: Axes, bars: BarContainer, lows: Sequence[float], highs: Sequence[float], sideways: bool) -> None:
    """The range of each bar's samples, as a thin line over its end."""
    for bar, low, high in zip(bars, lows, highs, strict=True):
        if sideways:
            axes.hlines(bar.get_y() + bar.get_height() / 2, low, high, color=INK, linewidth=0.9)
        else:
            axes.vlines(bar.get_x() + bar.get_width() / 2, low, high, color=INK, linewidth=0.9)


def machine(model: dict, environment: dict) -> str:
    """Processor, threads, kernel path and versions, of a described model and environment."""
    where = environment["gpu"] if model["device"].startswith("cuda") else environment["processor"]
    threads = f"{environment['threads']} thread{'' if environment['threads'] == 1 else 's'}"
    versions = environment["versions"]
    return (
        f"{where}, {threads}; kernel path {model['kernel_path']}; torch {versions['torch']}, clipq {versions['clipq']}"
    )


def digits(value: float) -> str:
    """Three digits, as people write them: 0.0123, 1.62, 13.2, 236."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:#.3g}" if value else "0"


def plain(text: str) -> str:
    """`text` without what no picture can hold: control characters, and bytes of file names that are no letters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def plain_lines(text: str) -> str:
    """`plain`, but for the ends of lines."""
    return "\n".join(map(plain, text.split("\n")))
