"""Whole stacks of int8 blocks as one call of the native library, wherever they are what it computes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels import ops
from ..kernels.stack import pack_block, run_packed
from ..modules.layers import QLinear, run_by_compiler
from ..native.library import best_path
from .sequences import Sequences
from .transformer import Block
from .weights import block_weights, modules_of

_SETTINGS = ("eps", "approximate")  # of norms and activations, packed with the weights


class FusedBlock:
    """One block, packed for the native library when asked for, and anew once its modules change."""

    def __init__(self, block: Block):
        self._block = block
        parts = modules_of(block)
        self.linears = [part for part in parts if isinstance(part, QLinear)]
        self._floats = [part for part in parts if not isinstance(part, QLinear)]
        self._last: tuple[_Snapshot | None, _Packed | None] = (None, None)  # one attribute: threads see both or neither

    def packed(self) -> _Packed | None:
        """The block as its modules are now; None if it is not one that the library computes."""
        seen, packed = self._last
        if seen is None or not seen.is_current():
            seen = _Snapshot(self.linears, self._floats)
            packed = self._pack(seen)
            self._last = (seen, packed)
        return packed

    def _pack(self, seen: _Snapshot) -> _Packed | None:
        if not self.linears or seen.has_own_forward or any(type(one.qweight) not in ops.REAL for one in self.linears):
            return None
        weights = block_weights(self._block)
        if weights is None:
            return None
        path = (self.linears[0].forced_kernel or "").partition("/")[2] or best_path()
        return _Packed(path, pack_block(weights, path))


def fused(block: Block) -> FusedBlock:
    """The one `FusedBlock` of `block`: whoever runs it, alone or in a stack, it is packed once."""
    return vars(block).setdefault("fused", FusedBlock(block))


@dataclass(frozen=True)
class _Packed:
    """A packed block (uint8) and the instruction set it was packed for."""

    path: str
    block: Tensor


@dataclass(frozen=True)
class _Ready:
    """Packed blocks and their addresses: who runs them holds on to them, whatever is packed meanwhile."""

    blocks: list[Tensor]
    addresses: ctypes.Array

    @classmethod
    def of(cls, blocks: list[Tensor]) -> _Ready:
        return cls(blocks, (ctypes.c_void_p * len(blocks))(*(one.data_ptr() for one in blocks)))

    def part(self, which: slice) -> _Ready:
        return self if which == _ALL else _Ready.of(self.blocks[which])


_ALL = slice(None)


class FusedStack:
    """The blocks of a tower as one native call.

    All between the int8 products (LayerNorm, attention, activation, residual) is computed in float32 then, whatever the
    model's fallback precision; only the rows that come back are in the precision of those that went in.
    """

    def __init__(self, blocks: Sequence[Block]):
        self._fused = [fused(block) for block in blocks]
        self._linears = [linear for one in self._fused for linear in one.linears]
        self._stamps: list[object] = []
        self._ready: _Ready | None = None

    def fits(self, x: Tensor) -> bool:
        """Whether the native library can run rows `x` through these blocks, as the modules are now."""
        if not self._linears or not x.is_cpu:
            return False
        _pack_if_changed(self)
        if torch.compiler.is_compiling() and stamps(self._linears) != self._stamps:
            return False  # never, but what was compiled is valid only for these stamps, and so the compiler learns it
        return self._ready is not None

    def is_partly_int8(self) -> bool:
        """Whether some linears are quantized, whoever may run them."""
        return bool(self._linears)

    def pack(self) -> list[QLinear]:
        """Pack what is not packed yet: else the first call does. The linears that need no packing of their own then."""
        _pack_if_changed(self)
        return self._linears if self._ready else []

    def __call__(
        self, x: Tensor, sequences: Sequences, causal: bool, keep: Tensor | None = None, blocks: slice = _ALL
    ) -> Tensor:
        """As `transformer.run_blocks`, for an `x` that fits. `blocks`: those to run."""
        ready, rotary = self._ready.part(blocks), sequences.rotary
        tables = None if rotary is None else (rotary.cos, rotary.sin, rotary.prefix)
        if ops.traced(x):
            parts = (x, sequences.offsets, ready.blocks, causal, keep)
            turned = (None, 0) if rotary is None else (torch.stack((rotary.cos, rotary.sin)), rotary.prefix)
            return ops.blocks(*parts, *turned, sequences.last_unseen)
        ops.refuse_gradient(x)
        return run_packed(x, sequences.offsets, ready.addresses, int(causal) + sequences.last_unseen, keep, tables)


@run_by_compiler
def _pack_if_changed(stack: FusedStack) -> None:
    packed = [one.packed() for one in stack._fused]
    if None in packed or len({one.path for one in packed}) != 1:
        stack._ready = None
    elif stack._ready is None or any(a is not b.block for a, b in zip(stack._ready.blocks, packed, strict=True)):
        stack._ready = _Ready.of([one.block for one in packed])
    stack._stamps = stamps(stack._linears)


class _Snapshot:
    """What a stack's modules were when they were packed. Comparing it with what they are takes some 10 us.

    A float tensor that is written to is seen where torch counts that: not through `.data`, not in inference tensors.
    """

    def __init__(self, linears: Sequence[QLinear], floats: Sequence[nn.Module]):
        self._linears = linears
        self._own = [vars(part) for part in (*linears, *floats)]
        self._plain = [own for part in floats for own in [vars(part)] if not own.keys().isdisjoint(_SETTINGS)]
        self._held = [(part._parameters, *item) for part in floats for item in part._parameters.items()]
        self._counted = [t for *_, t in self._held if t is not None and not t.is_inference()]
        self._before = self.stamps, _, self.has_own_forward, _ = self._now()

    def _now(self) -> tuple[list[object], list[int], bool, list[object]]:
        versions = [tensor._version for tensor in self._counted]
        settings = [own.get(name) for own in self._plain for name in _SETTINGS]
        return stamps(self._linears), versions, any("forward" in own for own in self._own), settings

    def is_current(self) -> bool:
        if any(type(linear.qweight) not in ops.REAL for linear in self._linears):
            return stamps(self._linears) == self.stamps  # an export has put other tensors in the place of the same ones
        replaced = [True for held, name, tensor in self._held if held.get(name) is not tensor]
        return not replaced and self._now() == self._before


def stamps(linears: Sequence[QLinear]) -> list[object]:
    return [linear.stamp for linear in linears]
