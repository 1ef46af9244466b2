"""The student: a copy of the float model whose linears are fake-quantized, and the model that becomes of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ..arithmetic.schemes import Scheme
from ..arithmetic.specs import QuantSpec
from ..errors import SchemeError
from ..hosts import Host, find_host
from ..hosts.calls import install as install_calls
from ..methods.choosing import needs_calibration, unsettled
from ..methods.finishing import finish
from ..methods.recipes import Recipe
from ..methods.replacing import install, plan, replacement
from ..methods.steps import is_calibrated, steps_of
from ..methods.work import Floats, Work
from ..modules.layers import QuantizedModule
from .fakes import Fake

LIGHT, FULL = "light", "full"
MODES = (LIGHT, FULL)


@dataclass(frozen=True)
class Student:
    """`module` computes with `fakes` (by their names) until `settle` makes an ordinary quantized model of it."""

    module: nn.Module
    host: Host
    recipe: Recipe
    fakes: Mapping[str, Fake]
    mode: str

    @property
    def towers(self) -> tuple[str, ...]:
        """Those that are trained: the quantized ones."""
        return tuple(tower for tower, scheme in self.recipe.schemes.items() if not scheme.is_float)

    def encode(self, tower: str, batch: Tensor) -> Tensor:
        """Embeddings [n, width] of pixels or token ids, not normalized."""
        encode = self.host.encode_image if tower == "image" else self.host.encode_text
        return encode(self.module, batch)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name, in a fixed order."""
        own = {f"{name}.{key}": one for name, fake in self.fakes.items() for key, one in fake.named_parameters()}
        return {name: one for name, one in {**own, **self._of_host()}.items() if one.requires_grad}

    def _of_host(self) -> dict[str, nn.Parameter]:
        return dict(_host_parameters(self.module, self.host, self.towers))

    def settle(self) -> nn.Module:
        """The module with integers in place of the fakes, ready for inference: what `quantize` makes."""
        for fake in self.fakes.values():
            fake.settle()
        finish(self.module, self.host, self.recipe)
        return self.module


def make_student(
    module: nn.Module,
    schemes: Mapping[str, Scheme],
    inputs: Mapping[str, Sequence[Tensor]],
    mode: str,
    begin: tuple[str, ...] = (),
) -> Student:
    """A student of `module`, which stays as it is, after the steps of `schemes` (`begin`, where they have none).

    `inputs`: to calibrate these steps on. Raises `SchemeError` for a scheme without step sizes.
    """
    module, host = copy.deepcopy(module).float().eval().requires_grad_(False), find_host(module)
    recipe = Recipe(dict(schemes), plan(host, module, schemes))
    originals = {name: module.get_submodule(name) for name in recipe.modules}
    replacements = {name: replacement(module, name, kind, host, recipe) for name, kind in recipe.modules.items()}
    host.prepare(module)
    install(module, replacements)
    install_calls(module)
    floats = []
    for tower, scheme in beginnings(schemes, begin).items():
        own = {name: one for name, one in originals.items() if host.tower_of(module, name) == tower}
        floats += _after_steps(module, host, tower, scheme, own, inputs.get(tower, ()))
    fakes = {one.name: Fake(one, weights=mode == FULL) for one in floats}
    for fake in fakes.values():
        fake.stand_in()
    student = Student(module, host, recipe, fakes, mode)
    for one in student._of_host().values():
        one.requires_grad_(mode == FULL or one.ndim <= 1)
    return student


def beginnings(schemes: Mapping[str, Scheme], begin: tuple[str, ...]) -> dict[str, Scheme]:
    """The quantized ones of `schemes`, with the steps that are run before the training."""
    return {t: replace(one, steps=one.steps or begin) for t, one in schemes.items() if not one.is_float}


def _after_steps(
    module: nn.Module,
    host: Host,
    tower: str,
    scheme: Scheme,
    originals: Mapping[str, nn.Module],
    inputs: Sequence[Tensor],
) -> list[Floats]:
    """The floats of all linears in place of `originals`, after the steps of `scheme`."""
    floats = unsettled(module, originals)
    for layer in floats:
        _refuse_codebook(layer.spec)
    if is_calibrated(scheme) and not inputs:
        raise needs_calibration(tower, scheme.name)
    work = Work(module, host, tower, scheme, floats, inputs)
    for step in steps_of(scheme):
        step.run(work)
    return list(floats.values())


def _refuse_codebook(spec: QuantSpec) -> None:
    if spec.codebook:
        raise SchemeError(f"{spec.label} has a codebook and no step size to be learned; use another precision.")


def _host_parameters(module: nn.Module, host: Host, towers: Sequence[str]) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of the trained towers that are the host's own: norms, positions, projections."""
    seen: set[int] = set()
    for path, part in module.named_modules():
        if isinstance(part, QuantizedModule):
            continue
        for key, one in part.named_parameters(path, recurse=False):
            if host.tower_of(module, key) in towers and id(one) not in seen:
                seen.add(id(one))
                yield key, one
