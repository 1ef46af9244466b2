"""What is to be exported, and how: checked before any work is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..arithmetic.precisions import check_towers
from ..errors import ExportError, SchemeError
from ..models import Model
from ..modules.layers import QLinear
from .forms import kind_of
from .graphs import NEWEST_OPSET
from .layouts import Layout, layout_named
from .targets import Target, target_named


@dataclass(frozen=True)
class Order:
    """What is to be exported, and how."""

    model: Model
    name: str
    target: Target
    layout: Layout
    towers: tuple[str, ...]
    opset: int

    def graphs(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each graph: its path without an ending, and the towers in it."""
        stems = {tower: self.layout.stem(self.model, tower) for tower in self.towers}
        for stem in dict.fromkeys(stems.values()):
            yield stem, tuple(tower for tower in self.towers if stems[tower] == stem)

    def kinds(self, towers: Sequence[str]) -> frozenset[str]:
        """How the quantized linears of `towers` compute."""
        layers = ((name, part) for name, part in self.model.module.named_modules() if isinstance(part, QLinear))
        of_towers = (one for name, one in layers if self.model.host.tower_of(self.model.module, name) in towers)
        return frozenset(kind_of(one.spec, one.activations) for one in of_towers)


def order_of(model: Model, to: str, towers: Sequence[str] | None, layout: str, opset: int | None) -> Order:
    target = target_named(to)
    chosen = tuple(model.towers if towers is None else towers)
    check_towers(chosen)
    if not chosen or not set(chosen) <= set(model.towers):
        raise ExportError(f"towers={chosen} of a model that has {', '.join(model.towers)}; name some of these.")
    if target.folder and (set(chosen) != set(model.towers) or layout != "plain" or opset is not None):
        raise ExportError(f"a folder of {to!r} holds the whole model, in one layout; leave out towers, layout, opset.")
    for tower in chosen:
        _check_float(model, tower, to, target)
    found = layout_named(layout, to)
    return Order(model, to, target, found, chosen, _opset(opset, target, to))


def _opset(asked: int | None, target: Target, to: str) -> int:
    if asked is None:
        return target.opset
    if not target.opset <= asked <= NEWEST_OPSET:
        raise SchemeError(f"opset={asked!r} is not allowed for {to!r}; give one from {target.opset} to {NEWEST_OPSET}.")
    return asked


def _check_float(model: Model, tower: str, to: str, target: Target) -> None:
    scheme = model.recipe.schemes[tower]
    if scheme.is_float and scheme.fallback not in target.floats:
        raise ExportError(
            f"the {tower} tower is {scheme.name!r}, which {to!r} does not have; it has {_floats(target)}"
            "quantized precisions (`clipq list --precisions`)."
        )


def _floats(target: Target) -> str:
    return f"{', '.join(target.floats)} and " if target.floats else ""
