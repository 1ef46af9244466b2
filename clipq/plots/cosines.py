"""How near the embeddings of two models are: histograms of cosines, logarithmic in the distance from 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .style import BLUE, ORANGE, axes_at

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..evaluation.answers import Answers

_LEFT, _WIDTH = 6.7, 2.9  # inches; half a tick's label lies beyond the end
_BINS_A_DECADE = 8
_NEAREST = 1e-8  # of embeddings in fp32, what is nearer to 1 is 1


def distances(own: torch.Tensor, base: torch.Tensor) -> list[float]:
    """1 - cosine, row by row of [n, D] and [n, D], computed in float64; at least `_NEAREST`."""
    from torch.nn.functional import cosine_similarity

    return (1 - cosine_similarity(own.double(), base.double(), dim=-1)).clamp(min=_NEAREST).tolist()


def draw(figure: Figure, own: Answers, base: Answers, top: float, height: float) -> None:
    """Images and classes of two aligned `Answers` in one panel, each as a share of its own number."""
    axes = axes_at(figure, _LEFT, top, _WIDTH, height)
    found = {
        "images": (distances(own.images, base.images), BLUE, "-"),
        "class texts": (distances(own.classes, base.classes), ORANGE, "--"),
    }
    edges = _edges([value for values, _, _ in found.values() for value in values])
    for name, (values, colour, line) in found.items():
        _steps(axes, values, edges, name, colour, line)
    _scale(axes, edges)
    axes.set_title("cosine to the baseline's embeddings")
    axes.set_ylabel("share of embeddings, %")
    axes.set_xlabel("cosine (logarithmic in its distance from 1)")
    axes.legend(loc="upper left", fontsize=7.5, frameon=False, borderaxespad=0, handlelength=1.5)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.35)  # room for the legend


def _edges(values: list[float]) -> list[float]:
    """Bins of equal width in the logarithm, whole decades or parts of them, which hold all `values`."""
    low = math.floor(_BINS_A_DECADE * math.log10(min(values)) + 1e-9)
    high = max(math.ceil(_BINS_A_DECADE * math.log10(max(values)) + 1e-9), low + _BINS_A_DECADE)
    return [10 ** (i / _BINS_A_DECADE) for i in range(low, high + 1)]


def _steps(axes: Axes, values: list[float], edges: list[float], name: str, colour: str, line: str) -> None:
    weights = [100 / len(values)] * len(values)
    middle = sorted(values)[len(values) // 2]
    label = f"{name}, n = {len(values)}, median {shown(1 - middle)}"
    options = {"bins": edges, "weights": weights, "color": colour, "histtype": "stepfilled", "linewidth": 1.5}
    (patch,) = axes.hist(values, label=label, facecolor=(*_rgb(colour), 0.25), edgecolor=colour, ls=line, **options)[2]
    patch.set_gid(f"histogram-{name.replace(' ', '-')}")


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def _scale(axes: Axes, edges: list[float]) -> None:
    """Nearer is further right; the ticks say the cosine, one a decade (0.99, 0.999, ...)."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xlim(edges[-1], edges[0])
    ticks = _ticks(edges[0], edges[-1])
    axes.set_xticks(ticks, [shown(1 - tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _ticks(low: float, high: float) -> list[float]:
    """Distances whose cosines are short to write, three to five of them: one a decade or so, or 1, 2 and 5 of each."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    parts = (1, 2, 5) if last - first < 2 else (1, 3) if last - first < 3 else (1,)
    ticks = [part * 10.0**decade for decade in range(first, last + 1) for part in parts]
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return ticks[:: max(1, math.ceil(len(ticks) / 4))]


def shown(cosine: float) -> str:
    """As many digits as tell it from 1: 0.9, 0.99, 0.99992; "1" for what fp32 cannot tell from it."""
    distance = 1 - cosine
    if distance < 1.5 * _NEAREST:
        return "1"
    return f"{cosine:.{max(1, math.ceil(-math.log10(distance) - 1e-6))}f}"
