"""What there was to choose from within a budget: the Pareto front of a search over precisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .saving import check_matplotlib
from .style import BLUE, GREY, ORANGE, SOFT, axes_at, caption_height, card, styled, wrapped_caption

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..mixing.mixtures import Mixture

_WIDTH, _TOP, _LEFT, _ACROSS, _HEIGHT = 6.2, 0.95, 0.95, 4.9, 2.7  # inches
_FLOOR = 1e-9  # nats


def front(found: Mixture, name: str = "") -> Figure:
    """The estimated error of each choice against its size, or its time for a budget of that; the chosen one marked.

    found: what `clipq.mix` returned; name: of the model. Raises `ClipqError` if matplotlib is missing.
    """
    check_matplotlib()
    timed = found.budget.kind == "max_ms"
    costs = [point.cost for point in found.front] if timed else [size / 1e6 for size in found.sizes]
    errors = [max(point.error, _FLOOR) for point in found.front]
    chosen = found.front.index(found.chosen)
    lines = wrapped_caption(_WIDTH, _caption(found))
    title = f"{name}: precisions within a budget" if name else "Precisions within a budget"
    about = f"budget: {found.budget.kind} = {found.budget.shown()}"
    with styled():
        figure = card(_WIDTH, _TOP + _HEIGHT + 0.75 + caption_height(lines), title, about, _caption(found))
        axes = axes_at(figure, _LEFT, _TOP, _ACROSS, _HEIGHT)
        axes.plot(costs, errors, "o-", color=BLUE, markersize=3, linewidth=1, gid="front")
        axes.plot([costs[chosen]], [errors[chosen]], "o", color=ORANGE, markersize=8, gid="chosen")
        if found.budget.kind != "max_drop":
            axes.axvline(
                found.budget.limit if timed else found.budget.limit / 1e6, color=GREY, linestyle="--", gid="limit"
            )
        axes.set_yscale("log")
        axes.set_xlabel("milliseconds, the sum of the parts" if timed else "size of all tensors, MB", color=SOFT)
        axes.set_ylabel("estimated divergence, nats")
        axes.tick_params(length=0)
        axes.grid()
    return figure


def _caption(found: Mixture) -> list[str]:
    values = found.measured
    size, time = f"{values['bytes'] / 1e6:.2f} MB", f", {values['ms']:.2f} ms" if "ms" in values else ""
    return [
        f"The chosen one, on data that the search did not see: {size}{time},",
        f"mean cosine to fp32 {values['cosine']:.4f},",
        f"another nearest answer for {100 * values['changed']:.1f} % of the inputs,",
        f"an estimated drop of {values['drop']:.2f} points of top-1.",
    ]
