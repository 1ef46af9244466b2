"""Towers run over rows: without the tokens, and the rows of the last block, that no embedding depends on.

A causal text tower reads one token, and that one sees only those before it: what follows is never computed, and prompts
lie end to end without padding. A tower that reads one token needs the last block for that token only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from .blocks import BlockNames, BlockView, find_blocks
from .fused import FusedStack
from .transformer import Block, InProjection, Rows, Sequences, run_blocks


@dataclass(frozen=True)
class Tower:
    """One tower as the runner needs it: the host's own modules and methods, looked at when called.

    `embed`: pixels to [batch, tokens, width], with class token, positions and the norm before the blocks; for texts
    (ids [rows], positions [rows]) to [rows, width]. `head`: pooled rows [n, width] to [n, out]; [batch, tokens, width]
    to [batch, out] where `pool` is None. `pool`: the token that an embedding is read from: its index, None for all
    tokens, or for texts a function of ids [batch, tokens] that gives int64 [batch]. `parts`: the modules that are
    called or stood in for. `context`: the most tokens of a text.
    """

    blocks: tuple[Block, ...]
    embed: Callable[..., Tensor]
    head: Callable[[Tensor], Tensor]
    parts: tuple[nn.Module, ...]
    pool: int | Callable[[Tensor], Tensor] | None = 0
    causal: bool = False
    context: int = 0

    @cached_property
    def stack(self) -> FusedStack:
        """The blocks as one native call, where they are int8 and on the CPU."""
        return FusedStack(self.blocks)


def run_image(tower: Tower, pixels: Tensor) -> Tensor:
    """What the host's own tower makes of preprocessed images: [batch, 3, height, width] to [batch, out]."""
    x = tower.embed(pixels)
    batch, tokens, width = x.shape
    sequences = Sequences.equal(batch, tokens)
    keep = None if tower.pool is None else sequences.offsets[:-1] + tower.pool
    rows = _run(tower, x.reshape(-1, width), sequences, keep)
    return tower.head(rows.view(batch, tokens, -1) if keep is None else rows)


def run_text(tower: Tower, ids: Tensor) -> Tensor:
    """What the host's own tower makes of token ids: [batch, tokens] to [batch, out]."""
    batch, tokens = ids.shape
    pooled = tower.pool(ids).cpu()
    sequences = Sequences.of_lengths(pooled + 1) if tower.causal else Sequences.equal(batch, tokens)
    positions = torch.arange(sequences.longest, device=ids.device).expand(batch, -1)
    ids = ids[:, : sequences.longest]
    if not sequences.uniform:
        used = positions < sequences.lengths.to(ids.device)[:, None]
        ids, positions = ids[used], positions[used]
    rows = tower.embed(ids.reshape(-1), positions.reshape(-1))
    return tower.head(_run(tower, rows, sequences, sequences.offsets[:-1] + pooled))


def _run(tower: Tower, rows: Tensor, sequences: Sequences, keep: Tensor | None) -> Tensor:
    if tower.stack.fits(rows):
        return tower.stack(rows, sequences, tower.causal, keep)
    return run_blocks(tower.blocks, rows, sequences, tower.causal, keep)


def blocks_of(stack: nn.Module, tables: Mapping[str, BlockNames]) -> tuple[Block, ...] | None:
    """The blocks of a host's list of them, quantized or not; None unless each one is a plain pre-norm block."""
    views = list(find_blocks(stack, tables))
    if not views or len(views) != len(stack) or not all(view.is_plain() for view in views):
        return None
    return tuple(_block(view) for view in views)


def _block(view: BlockView) -> Block:
    names = view.names
    scales = {role: view.part(role) for role in ("ls_1", "ls_2") if getattr(names, role)}
    return Block(
        ln_1=view.part("ln_1"),
        qkv=tuple(_projection(view, name) for name in names.qkv),
        out_proj=view.holder(names.out_proj),
        ln_2=view.part("ln_2"),
        fc1=view.holder(names.fc1),
        act=view.part("act"),
        fc2=view.holder(names.fc2),
        heads=getattr(view.part("attention"), names.heads),
        **{role: scale for role, scale in scales.items() if type(scale) is not nn.Identity},
    )


def _projection(view: BlockView, name: str) -> Rows:
    holder = view.holder(name)
    if not name.endswith("in_proj_weight"):
        return holder
    return holder.in_proj if hasattr(holder, "in_proj") else InProjection(holder)  # after or before `quantize`


class TowerView:
    """A tower, found once, and whether it may still stand for the host's own forward. Asking costs microseconds.

    A hook, a forward of one's own, or training mode on any of its modules means that somebody wants the host's call.
    """

    def __init__(self, module: nn.Module, tower: Tower | None):
        self.module, self._tower = module, tower
        inner = [part for root in (tower.parts if tower else ()) for part in root.modules()]
        parents = [part for part in inner if part._modules]
        dictionaries = [(part._forward_hooks, part._forward_pre_hooks) for part in inner]
        everywhere = (torch_modules._global_forward_hooks, torch_modules._global_forward_pre_hooks)
        self._hooks = [hooks for pair in (everywhere, *dictionaries) for hooks in pair]
        self._own = [vars(part) for part in parents]
        self._children = [part._modules for part in (module, *parents)]
        self._seen = self._children_now()

    def _children_now(self) -> list[list[nn.Module | None]]:
        return [list(children.values()) for children in self._children]

    def is_of(self, module: nn.Module) -> bool:
        """Whether the tower was found in `module` as it is now: no module of it has been replaced since."""
        return module is self.module and self._children_now() == self._seen

    def usable(self) -> Tower | None:
        """The tower, or None if the host's own forward has to run."""
        tower = self._tower
        if tower is None or any(self._hooks) or any("forward" in own for own in self._own):
            return None
        return None if any(part.training for part in (self.module, *tower.parts)) else tower


def distinct(rows: Iterable) -> tuple[list[int], list[int]]:
    """Of hashable `rows`: where each different one stands first, and for each row which of those it equals."""
    first: dict = {}
    which, places = [], []
    for place, row in enumerate(rows):
        index = first.setdefault(row, len(first))
        if index == len(places):
            places.append(place)
        which.append(index)
    return places, which
