"""What a pre-norm transformer block looks like from clipq: which weight plays which part, in any host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

from torch import nn


@dataclass(frozen=True)
class BlockNames:
    """The host's names, relative to the block, of a block's parts. Linears are named by their weight tensor on disk."""

    ln_1: str
    qkv: tuple[str, ...]
    out_proj: str
    ln_2: str
    fc1: str
    fc2: str
    act: str
    attention: str
    ls_1: str | None = None
    ls_2: str | None = None


@dataclass(frozen=True)
class BlockView:
    """One block of a model: `name` is its path, `module` the host's block, `names` its parts."""

    name: str
    module: nn.Module
    names: BlockNames

    def weights(self) -> list[str]:
        """The names on disk of the block's matrix weights: query, key, value, output, and the two of the MLP."""
        return [
            f"{self.name}.{part}" for part in (*self.names.qkv, self.names.out_proj, self.names.fc1, self.names.fc2)
        ]

    def part(self, role: str) -> nn.Module:
        """The module that plays `role` ("ln_1", "act", "attention", ...)."""
        return reduce(getattr, getattr(self.names, role).split("."), self.module)


def find_blocks(model: nn.Module, tables: Mapping[str, BlockNames]) -> Iterator[BlockView]:
    """The blocks of `model` whose class name is in `tables` and whose parts are all there."""
    for path, module in model.named_modules():
        names = tables.get(type(module).__name__)
        if names is not None and _complete(module, names):
            yield BlockView(path, module, names)


def _complete(module: nn.Module, names: BlockNames) -> bool:
    try:
        for part in (names.ln_1, names.ln_2, names.attention, names.act, names.fc1.rpartition(".")[0]):
            reduce(getattr, part.split("."), module)
    except AttributeError:
        return False
    return True
