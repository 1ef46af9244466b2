"""What was done to a model: its `Recipe`, kept on the host's module and in its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..arithmetic.precisions import resolve
from ..arithmetic.schemes import Scheme
from ..errors import SchemeError
from ..hosts import find_host
from .dtypes import DTYPES, tower_dtype

_SHA256 = re.compile("[0-9a-f]{64}")
_RECIPE = "clipq_recipe"  # an attribute of the host's module, so that copies and pickles of it carry it along


@dataclass(frozen=True)
class Recipe:
    """What was done to a model: a scheme per tower and, for each replaced module, the kind of its replacement.

    `calibration`: for each tower that was calibrated, how many inputs it was shown ("count") and the sha256 of their
    tensors ("sha256").
    """

    schemes: dict[str, Scheme]
    modules: dict[str, str] = field(default_factory=dict)
    calibration: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def precision(self) -> dict[str, str]:
        return {tower: scheme.name for tower, scheme in self.schemes.items()}

    def at(self, tower: str, name: str) -> Scheme:
        """The scheme of the module called `name`, which belongs to `tower`."""
        return self.schemes[tower].at(name)

    def to_dict(self) -> dict[str, Any]:
        shown = {"calibration": {k: dict(one) for k, one in self.calibration.items()}} if self.calibration else {}
        return {"towers": {k: s.to_dict() for k, s in self.schemes.items()}, "modules": dict(self.modules), **shown}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        schemes = {k: Scheme.from_dict(v) for k, v in values["towers"].items()}
        return cls(schemes, dict(values["modules"]), _calibration(values.get("calibration", {}), schemes))


def _calibration(values: Any, schemes: Mapping[str, Scheme]) -> dict[str, dict[str, Any]]:
    """Of a file. Raises `SchemeError` for anything but what `Recipe` says."""
    right = isinstance(values, Mapping) and set(values) <= set(schemes)
    for one in values.values() if right else ():
        right = right and isinstance(one, Mapping) and set(one) == {"count", "sha256"}
        right = right and type(one["count"]) is int and one["count"] > 0 and bool(_SHA256.fullmatch(str(one["sha256"])))
    if not right:
        raise SchemeError(f"no account of what a model was calibrated on: {values!r}.")
    return {tower: dict(one) for tower, one in values.items()}


def stated_recipe(module: nn.Module) -> Recipe | None:
    """The recipe that `quantize` or a file left on `module`; None for one that clipq never touched."""
    return getattr(module, _RECIPE, None)


def recipe_of(module: nn.Module) -> Recipe:
    """What was done to `module`; for one that clipq never touched, its towers' float precisions."""
    if stated := stated_recipe(module):
        return stated
    host, names = find_host(module), {dtype: name for name, dtype in DTYPES.items()}
    found = {tower: names.get(tower_dtype(module, host, tower), "fp32") for tower in host.towers(module)}
    return Recipe({tower: resolve(name) for tower, name in found.items()})


def state(module: nn.Module, recipe: Recipe) -> None:
    """Leave `recipe` on `module`."""
    setattr(module, _RECIPE, recipe)
