"""What a pre-norm transformer block looks like from clipq: which weight plays which part, in any host."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import reduce
from typing import Any

from torch import nn

from .transformer import LayerScale

HOST_LIBRARIES = {"torch", "open_clip", "transformers", "timm"}
"""Whose classes are known by name; a class of the same name elsewhere may compute something else."""
_IDLE = {"Identity", "Dropout", "DropPath", "Dinov2DropPath"}  # do nothing outside training
_IN_PROJECTION = {"in_proj_weight", "in_proj_bias"}
_PLAIN_ATTENTION = {"eager", "sdpa", "flash_attention_2"}  # of transformers: the same product, by other kernels


@dataclass(frozen=True)
class BlockNames:
    """The host's names, relative to the block, of a block's parts. Linears are named by their weight tensor on disk.

    `fc1`, `halves`: as `transformer.Block` has them. What may be missing from a block (`OPTIONAL`) is a module, a bare
    parameter of the block, or None there. `heads` is the attention's attribute with their number; `containers` the
    classes of the modules between the block and its parts, whose forward is the plain one unless they hold more than
    those parts. `rotation` tells of a block how it turns queries and keys; `usual` whether its settings leave it the
    plain block.
    """

    ln_1: str
    qkv: tuple[str, ...]
    out_proj: str
    ln_2: str
    fc1: tuple[str, ...]
    fc2: str
    act: str
    attention: str
    ls_1: str | None = None
    ls_2: str | None = None
    q_norm: str | None = None
    k_norm: str | None = None
    attn_norm: str | None = None
    mlp_norm: str | None = None
    heads: str = "num_heads"
    halves: bool = False
    containers: frozenset[str] = frozenset()
    rotation: Callable[[nn.Module], str] = lambda block: "none"
    usual: Callable[[nn.Module], bool] = lambda block: True

    def linears(self) -> tuple[str, ...]:
        return (*self.qkv, self.out_proj, *self.fc1, self.fc2)

    def optional(self) -> dict[str, str]:
        """The names of the parts that a block may have, by role."""
        return {role: getattr(self, role) for role in OPTIONAL if getattr(self, role) is not None}


OPTIONAL = ("ls_1", "ls_2", "q_norm", "k_norm", "attn_norm", "mlp_norm")
BlockTable = Mapping[str, tuple[BlockNames, ...]]
"""By the class of a block the ways in which its parts may be arranged."""


@dataclass(frozen=True)
class BlockView:
    """One block of a model: `name` is its path, `module` the host's block, `names` its parts."""

    name: str
    module: nn.Module
    names: BlockNames

    def weights(self) -> list[str]:
        """The names on disk of the block's matrix weights: query, key, value, output, and those of the MLP."""
        return [f"{self.name}.{part}" for part in self.names.linears()]

    def part(self, role: str) -> nn.Module:
        """The module that plays `role` ("ln_1", "act", "attention", ...)."""
        return self.module.get_submodule(getattr(self.names, role))

    def optional(self, role: str) -> nn.Module | LayerScale | None:
        """What plays a role that need not be played; None where nothing does."""
        found = _find(self.module, name) if (name := getattr(self.names, role)) else None
        if isinstance(found, nn.Parameter):
            return LayerScale(self.module, name)
        return None if type(found) is nn.Identity else found

    def holder(self, weight: str) -> nn.Module:
        """The module that holds the matrix called `weight` on disk: of "mlp.fc1.weight" the module "mlp.fc1"."""
        return self.module.get_submodule(weight.rpartition(".")[0])

    def is_plain(self) -> bool:
        """Whether the block computes the pre-norm block of its parts and nothing else."""
        names = self.names
        modules = {names.ln_1, names.ln_2, names.act, *names.optional().values(), f"{names.attention}.in_proj"}
        linears = {name.rpartition(".")[0] for name in names.linears()} - {names.attention}
        plain = _holds_only(self.module, "", modules | linears, names) and _is_usual(self.part("attention"))
        return plain and names.usual(self.module)


def library_of(part: object) -> str:
    """The package that defines the class of `part`."""
    return type(part).__module__.partition(".")[0]


def _find(module: nn.Module, path: str) -> Any:
    """What is at a path of attributes; None if nothing is."""
    return reduce(lambda found, name: getattr(found, name, None), path.split("."), module)


def _holds_only(module: nn.Module, path: str, parts: Set[str], names: BlockNames) -> bool:
    kind = type(module)
    if path in parts or kind.__name__ in _IDLE:
        return True
    known = (not path or kind.__name__ in names.containers) and library_of(module) in HOST_LIBRARIES | {"clipq"}
    tensors = {name for name, tensor in [*module._parameters.items(), *module._buffers.items()] if tensor is not None}
    unknown = tensors - (_IN_PROJECTION if path == names.attention else set() if path else parts)
    if not known or unknown or "forward" in vars(module):
        return False
    return all(_holds_only(m, f"{path}.{name}".lstrip("."), parts, names) for name, m in module.named_children())


def _is_usual(attention: nn.Module) -> bool:
    """Whether products are scaled by the root of a head's width, and only the sequence's own rows are attended to."""
    extra = getattr(attention, "bias_k", None) is not None or getattr(attention, "add_zero_attn", False)
    scale = getattr(attention, "scale", getattr(attention, "scaling", None))
    usual = scale is None or math.isclose(scale, attention.head_dim**-0.5)
    chosen = getattr(getattr(attention, "config", None), "_attn_implementation", "sdpa")
    return usual and not extra and chosen in _PLAIN_ATTENTION


def find_blocks(model: nn.Module, tables: BlockTable) -> Iterator[BlockView]:
    """The blocks of `model` whose class name is in `tables` and whose parts are all there."""
    for path, module in model.named_modules():
        fitting = [names for names in tables.get(type(module).__name__, ()) if _complete(module, names)]
        if fitting:
            yield BlockView(path, module, fitting[0])


def _complete(module: nn.Module, names: BlockNames) -> bool:
    holders = (name.rpartition(".")[0] for name in (*names.qkv, *names.fc1))
    parts = (names.ln_1, names.ln_2, names.attention, names.act, *holders)
    if any(_find(module, part) is None for part in parts):
        return False
    mlp = _find(module, names.fc2.rpartition(".")[0].rpartition(".")[0])
    return not names.halves or type(mlp).__name__ in names.containers
