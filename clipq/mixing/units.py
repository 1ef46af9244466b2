"""What gets a precision of its own in a mixed model, and trying a precision on some of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..arithmetic.precisions import PRECISIONS
from ..arithmetic.schemes import Scheme
from ..errors import SchemeError
from ..hosts import Host
from ..methods.choosing import choose_numbers
from ..methods.dtypes import DTYPES
from ..methods.recipes import Recipe
from ..methods.replacing import install, plan, replacement
from ..modules.state import slots
from ..towers.blocks import find_blocks

OUTSIDE = "outside the blocks"
_WITHIN = ("turn-values", "gptq", "gptq-in-order", "fit-scales", "correct-biases")
"""Steps that change the linears of a block and nothing around them."""


def reaching(scheme: Scheme) -> list[str]:
    """The steps of `scheme` that change more than the linears of a block, so that blocks cannot be tried one by one."""
    return [step for step in scheme.steps if step not in _WITHIN]


@dataclass(frozen=True)
class Unit:
    """What gets one precision: a block, a table of embeddings, or all else of a tower that can be quantized.

    `name`: the block's or table's path in the host's model, or `OUTSIDE`. `modules`: paths of what `quantize` replaces.
    """

    tower: str
    name: str
    modules: tuple[str, ...]

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns for `Scheme.exceptions` that match its modules and no others."""
        whole = len(self.modules) > 1 and all(name.startswith(f"{self.name}.") for name in self.modules)
        return (f"{self.name}.*",) if whole else self.modules


def units_of(module: nn.Module, host: Host, towers: Sequence[str]) -> tuple[Unit, ...]:
    """The units of `towers`, in the order of the model; blocks that lie within others belong to these."""
    kinds = plan(host, module, dict.fromkeys(towers, PRECISIONS["int8"]))
    blocks = [view.name for view in find_blocks(module, host.blocks)]
    members: dict[tuple[str, str], list[str]] = {}
    for name, kind in kinds.items():
        block = next((one for one in blocks if name.startswith(f"{one}.")), None)
        unit = block or (name if kind == "embedding" else OUTSIDE)
        members.setdefault((host.tower_of(module, name), unit), []).append(name)
    return tuple(Unit(tower, name, tuple(modules)) for (tower, name), modules in members.items())


class Trials:
    """A model whose units can be put into one of some precisions and back; numbers are chosen once for each precision.

    Steps of a precision run over the whole tower in it, on `inputs` if they look at any. Float precisions round the
    weights only: what they round between the layers is far less than what integers do.
    """

    def __init__(
        self,
        module: nn.Module,
        host: Host,
        units: Sequence[Unit],
        candidates: Mapping[str, Scheme],
        inputs: Mapping[str, Sequence[Tensor]] | None = None,
    ):
        for one in candidates.values():
            if far := reaching(one):
                raise SchemeError(
                    f"{one.name!r} has the step {far[0]!r}, which changes more than the linears of a block, so "
                    "blocks cannot be tried one by one; give precisions without it."
                )
        self._module, self._host, self.units, self.candidates = module, host, tuple(units), dict(candidates)
        self._originals = {name: module.get_submodule(name) for unit in units for name in unit.modules}
        self._kinds = plan(host, module, {unit.tower: PRECISIONS["int8"] for unit in units})
        self._kinds = {name: kind for name, kind in self._kinds.items() if name in self._originals}
        self._inputs = inputs or {}
        self._made: dict[str, dict[str, nn.Module]] = {}

    def _parts(self, precision: str) -> dict[str, nn.Module]:
        """What stands in place of each module in a quantized precision; without those that cannot have it."""
        if precision not in self._made:
            scheme = self.candidates[precision]
            recipe = Recipe({unit.tower: scheme for unit in self.units}, self._kinds)
            made: dict[str, nn.Module] = {}
            for name, kind in self._kinds.items():
                own = scheme.at(name)
                if own.is_float or (kind == "embedding" and own.embeddings is None):
                    continue
                with suppress(SchemeError):  # groups may not divide a width
                    made[name] = replacement(self._module, name, kind, self._host, recipe)
            try:
                install(self._module, made)
                choose_numbers(self._module, self._host, recipe, {k: self._originals[k] for k in made}, self._inputs)
            finally:
                install(self._module, self._originals)
            self._made[precision] = {name: part.eval().requires_grad_(False) for name, part in made.items()}
        return self._made[precision]

    def can(self, unit: Unit, precision: str) -> bool:
        """Whether the unit's shapes allow a precision."""
        return self.candidates[precision].is_float or self._parts(precision).keys() >= set(unit.modules)

    @contextmanager
    def tried(self, choice: Mapping[Unit, str]) -> Iterator[None]:
        """Within, units have the precisions of `choice` (others stay as they are); afterwards all is as before."""
        with ExitStack() as stack:
            for unit, precision in choice.items():
                scheme = self.candidates[precision]
                if not scheme.is_float:
                    self._parts(precision)
                for name in unit.modules:
                    if scheme.is_float:
                        stack.enter_context(_rounded(self._originals[name], DTYPES[scheme.fallback]))
                    else:
                        stack.callback(install, self._module, {name: self._originals[name]})
                        install(self._module, {name: self._parts(precision)[name]})
            yield

    def bytes_of(self, unit: Unit, precision: str, dtype: torch.dtype) -> int:
        """Of the unit's tensors as a file holds them, where what stays float is of `dtype`."""
        parts = self._originals if self.candidates[precision].is_float else self._parts(precision)
        return sum(stored_bytes(parts.get(name, self._originals[name]), dtype) for name in unit.modules)

    def other_bytes(self, tower: str, dtype: torch.dtype) -> int:
        """Of the tensors of `tower` that are of no unit."""
        inside = tuple(f"{name}." for name in self._originals)
        return sum(
            _nbytes(slot.tensor, dtype)
            for name, slot in slots(self._module).items()
            if self._host.tower_of(self._module, name) == tower and not name.startswith(inside)
        )


def stored_bytes(module: nn.Module, dtype: torch.dtype) -> int:
    """Of the tensors of a module, quantized or not, where what is float and may be cast is of `dtype`."""
    return sum(
        slot.tensor.nbytes if slot.is_extra or slot.is_quantized else _nbytes(slot.tensor, dtype)
        for slot in slots(module).values()
    )


def _nbytes(tensor: Tensor, dtype: torch.dtype) -> int:
    return tensor.numel() * dtype.itemsize if tensor.is_floating_point() else tensor.nbytes


@contextmanager
def _rounded(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    before = [(parameter, parameter.data) for parameter in module.parameters()]
    for parameter, data in before:
        parameter.data = data.to(dtype).to(data.dtype)
    try:
        yield
    finally:
        for parameter, data in before:
            parameter.data = data
