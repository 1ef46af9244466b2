"""What was done to a model: its `Recipe`, kept on the host's module and in its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..arithmetic.precisions import resolve
from ..arithmetic.schemes import Scheme
from ..hosts import find_host
from .dtypes import DTYPES, tower_dtype

_RECIPE = "clipq_recipe"  # an attribute of the host's module, so that copies and pickles of it carry it along


@dataclass(frozen=True)
class Recipe:
    """What was done to a model: a scheme per tower and, for each replaced module, the kind of its replacement."""

    schemes: dict[str, Scheme]
    modules: dict[str, str] = field(default_factory=dict)

    @property
    def precision(self) -> dict[str, str]:
        return {tower: scheme.name for tower, scheme in self.schemes.items()}

    def at(self, tower: str, name: str) -> Scheme:
        """The scheme of the module called `name`, which belongs to `tower`."""
        return self.schemes[tower].at(name)

    def to_dict(self) -> dict[str, Any]:
        return {"towers": {k: s.to_dict() for k, s in self.schemes.items()}, "modules": dict(self.modules)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        return cls({k: Scheme.from_dict(v) for k, v in values["towers"].items()}, dict(values["modules"]))


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
