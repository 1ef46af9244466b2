"""A choice of precisions for a model's units: as schemes, with what else there was to choose from, and as a table."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..arithmetic.schemes import Scheme
from ..resources import output_path
from .budgets import Budget
from .search import Point
from .sensitivity import Sensitivity
from .units import Unit

MIXED = "mixed"


@dataclass(frozen=True)
class Mixture:
    """What a search chose. `schemes`: of every tower. `units`: what was chosen for, in the order of a point's choice.

    `front`: the choices that were no worse than others, from the cheapest to the most accurate; `sizes`: their bytes.
    `measured`: of the chosen one, really quantized, on calibration data that the search did not see: "drop" (points),
    "changed" (share), the mean "cosine" to fp32, "bytes", and with a budget of time "ms".
    """

    schemes: dict[str, Scheme]
    budget: Budget
    units: tuple[Unit, ...]
    front: tuple[Point, ...]
    sizes: tuple[int, ...]
    chosen: Point
    measured: dict[str, float]
    sensitivity: Sensitivity

    def rows(self, most: int = 12) -> list[tuple[str, ...]]:
        """Of the front: a mark at the chosen point, size, budgeted cost, estimated error, and how many of what."""
        places = _spread(len(self.front), most)
        chosen = next((i for i, one in enumerate(self.front) if one == self.chosen), None)
        if chosen is not None:
            places = sorted({*places, chosen})
        return [self._row(place) for place in places]

    def _row(self, place: int) -> tuple[str, ...]:
        point = self.front[place]
        counts = ", ".join(f"{count} {name}" for name, count in sorted(Counter(point.choice).items()))
        size = f"{self.sizes[place] / 1e6:.2f} MB"
        return ("*" if point == self.chosen else "", size, self._cost(point), f"{point.error:.2e}", counts)

    def _cost(self, point: Point) -> str:
        return f"{point.cost:.2f} ms" if self.budget.kind == "max_ms" else ""

    def __str__(self) -> str:
        lines = [
            f"{mark:1} {size:>11} {cost:>9} {error:>9}  {counts}" for mark, size, cost, error, counts in self.rows()
        ]
        measured = ", ".join(f"{name} {value:.4g}" for name, value in self.measured.items())
        return "\n".join([f"{'':1} {'size':>11} {'':>9} {'KL, nats':>9}  units", *lines, f"* measured: {measured}"])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write all of it as JSON."""
        with output_path(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        return Path(path)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(replace(self, schemes={}))
        return {**values, "schemes": {tower: scheme.to_dict() for tower, scheme in self.schemes.items()}}


def schemes_of(
    units: Sequence[Unit], choice: Sequence[str], candidates: Mapping[str, Scheme], fallback: str
) -> dict[str, Scheme]:
    """A scheme for each tower of `units`: the quantized precision that most of its units have, others as exceptions."""
    found = {}
    for tower in dict.fromkeys(unit.tower for unit in units):
        own = {unit: name for unit, name in zip(units, choice, strict=True) if unit.tower == tower}
        quantized = Counter(name for name in own.values() if not candidates[name].is_float)
        if not quantized:
            found[tower] = candidates[next(iter(own.values()))]
            continue
        most = quantized.most_common(1)[0][0]
        others = {unit: candidates[name] for unit, name in own.items() if name != most}
        scheme = replace(candidates[most], fallback=fallback)
        if others:
            exceptions = [one for unit, other in others.items() for one in _exceptions(unit, other)]
            steps = next((candidates[name].steps for name in quantized if candidates[name].steps), ())
            scheme = replace(scheme, name=MIXED, steps=steps, exceptions=(*exceptions, *scheme.exceptions))
        found[tower] = scheme
    return found


def _exceptions(unit: Unit, scheme: Scheme) -> list[tuple[str, Scheme]]:
    """That give a unit a scheme, with the exceptions that this has itself."""
    schemes = [scheme.at(name) for name in unit.modules]
    if all(one is scheme for one in schemes):
        return [(pattern, _plain(scheme)) for pattern in unit.patterns]
    return [(name, _plain(one)) for name, one in zip(unit.modules, schemes, strict=True)]


def _plain(scheme: Scheme) -> Scheme:
    return replace(scheme, steps=(), exceptions=())


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
