"""A host's own call runs a whole tower, or a whole block, wherever that computes the same thing.

A class here is mixed into a subclass of a host's module class (in `hosts/`), whose `forward` then asks: `usable` gives
the tower or block to run, or None if somebody wants what is inside: a hook, a forward of one's own, training mode, a
gradient, a tracer. Then the host's own forward runs, module by module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from ..kernels import ops
from ..modules.layers import QLinear, run_by_compiler
from .fused import FusedStack
from .pools import Pool, run_pool
from .rows import Tower
from .sequences import Rotary, Sequences
from .transformer import Block

Found = Tower | Block | Pool
_VIEW = "_clipq_view"  # in a module's __dict__; found again after a copy or a pickle


class Inside:
    """The modules within some modules: what they are, and whether anybody wants them to be called. Some 10 us."""

    def __init__(self, roots: Iterable[nn.Module], idle: Callable[[object], bool]):
        self._roots = list(roots)
        inner = list(dict.fromkeys(part for root in self._roots for part in root.modules()))
        parents = [part for part in inner if part._modules]
        everywhere = (torch_modules._global_forward_hooks, torch_modules._global_forward_pre_hooks)
        pairs = [everywhere, *((part._forward_hooks, part._forward_pre_hooks) for part in inner)]
        self._hooks = [hooks for pair in pairs for hooks in pair]
        self._idle = idle
        self._own = [vars(part) for part in parents]
        self._children = [part._modules for part in parents]
        self._parameters = [part._parameters for part in inner if part._parameters]
        self._seen = self._children_now()

    def _children_now(self) -> list[list[nn.Module | None]]:
        return [list(children.values()) for children in self._children]

    def unchanged(self) -> bool:
        """Whether no module has been replaced."""
        return self._children_now() == self._seen

    def wanted(self) -> bool:
        """Whether the modules have to be called one by one."""
        if any(self._hooks) and not all(self._idle(hook) for hooks in self._hooks for hook in hooks.values()):
            return True
        if any("forward" in own for own in self._own) or any(root.training for root in self._roots):
            return True
        return torch.is_grad_enabled() and any(
            tensor is not None and tensor.requires_grad for held in self._parameters for tensor in held.values()
        )


class _View:
    """What was found in a module, valid as long as its modules and settings stay."""

    def __init__(self, module: Whole):
        self.settings, self.found = module.settings(), module.find()
        self.inside = Inside(module.stood_in_for(self.found), module.is_idle) if self.found else None
        self.children = list(module._modules.values())

    def is_of(self, module: Whole) -> bool:
        same = self.settings == module.settings() and self.children == list(module._modules.values())
        return same and (self.inside is None or self.inside.unchanged())


class Whole:
    """Mixed into a host's class: finds what the module is as a whole, once, and says whether that may run."""

    def find(self) -> Found | None:
        """What the module computes as a whole; None if that is not exactly known."""
        raise NotImplementedError

    def stood_in_for(self, found: Found) -> Iterable[nn.Module]:
        """The modules that are not called when `found` runs in their place."""
        raise NotImplementedError

    def settings(self) -> object:
        """The plain attributes that `find` looked at."""
        return None

    @staticmethod
    def is_idle(hook: object) -> bool:
        """Whether a hook does nothing now."""
        return False

    def usable(self, *inputs: object) -> Found | None:
        """What to run for these inputs, or None if the host's own forward has to."""
        if self.training or not all(map(_is_computed, inputs)):
            return None
        _look(self)
        return getattr(self, _VIEW)[1]

    def found(self) -> Found | None:
        """What `find` found, whether or not it may run now."""
        _look(self)
        return getattr(self, _VIEW)[0].found

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != _VIEW}


def _is_computed(x: object) -> bool:
    """Whether `x` is a batch of numbers, for which no gradient is asked and which nobody traces."""
    if not isinstance(x, Tensor) or x.numel() == 0 or torch.jit.is_tracing():
        return False
    return not (x.requires_grad and torch.is_grad_enabled())


def is_text(ids: object) -> bool:
    """Whether `ids` are [batch, tokens] whole numbers of a type that an embedding takes."""
    return isinstance(ids, Tensor) and ids.ndim == 2 and ids.dtype in (torch.int64, torch.int32)


def is_pixels(x: object) -> bool:
    """Whether `x` is [batch, channels, height, width]."""
    return isinstance(x, Tensor) and x.ndim == 4


@run_by_compiler
def _look(module: Whole) -> None:
    """Put the view of a module, and what of it is usable now, where `usable` reads it."""
    before, was_usable = module.__dict__.get(_VIEW, (None, None))
    view = before if before is not None and before.is_of(module) else _View(module)
    usable = None if view.inside is None or view.inside.wanted() else view.found
    if view is not before or usable is not was_usable:  # else nothing is written: a compiler watches it
        module.__dict__[_VIEW] = (view, usable)


class WholeTower(Whole):
    """A module that runs itself as a tower over rows."""

    def stood_in_for(self, found: Tower) -> Iterable[nn.Module]:
        return found.parts

    def pack(self) -> list[QLinear]:
        """Pack what the first call would, so that a model that was never called can be exported; what was packed."""
        found = self.usable()
        return (found.stack.pack() or found.runs.pack()) if found else []


class WholeBlock(Whole):
    """A module that runs itself as one native call, where int8 linears make that possible.

    So whoever runs a tower block by block, or looks at what comes out of each, gets the same bits as a whole tower.
    """

    def stood_in_for(self, found: Block) -> Iterator[nn.Module]:
        return self.children()

    def run(self, x: Tensor, causal: bool | None, rotary: Rotary | None = None) -> Tensor | None:
        """[batch, tokens, width] to the same; None if the modules have to be called. `causal`: None where unknown."""
        rows = isinstance(x, Tensor) and x.ndim == 3  # and not a proxy of torch.fx
        block = self.usable(x) if rows and causal is not None else None
        if block is None:
            return None
        _give_stack(block)
        stack = block.alone
        if not stack.fits(x):
            return None
        return stack(x.flatten(0, 1), Sequences.equal(*x.shape[:2], rotary), causal).view(x.shape)


class WholePool(Whole):
    """A module that runs itself as an attention pool of the native library, where int8 linears make that possible.

    `beside_int8`: whether it is one of a tower with int8 linears, which then need not be the pool's own.
    """

    beside_int8 = False

    def stood_in_for(self, found: Pool) -> Iterator[nn.Module]:
        return self.children()

    def run(self, x: Tensor) -> Tensor | None:
        """[batch, tokens, width] to [batch, width]; None if the modules have to be called."""
        rows = isinstance(x, Tensor) and x.ndim == 3 and not ops.traced(x)  # and not a proxy of torch.fx
        pool = self.usable(x) if rows else None
        return run_pool(pool, x) if pool is not None and (self.beside_int8 or pool.is_partly_int8) else None


@run_by_compiler
def _give_stack(block: Block) -> None:
    """Put a stack of one into `block.alone`. What a compiler makes while it traces does not exist yet."""
    if "alone" not in vars(block):
        vars(block)["alone"] = FusedStack((block,))
