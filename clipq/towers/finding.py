"""From a host's list of blocks to the blocks that are run over rows."""

from __future__ import annotations

from torch import nn

from ..modules.layers import QLinear
from .blocks import OPTIONAL, BlockTable, BlockView, find_blocks
from .calls import WholeBlock
from .transformer import Block, InProjection, Rows


def blocks_of(stack: nn.Module, tables: BlockTable) -> tuple[Block, ...] | None:
    """The blocks of a host's list of them, quantized or not; None unless each is a plain pre-norm block over rows."""
    views = list(find_blocks(stack, tables))
    if not views or len(views) != len(stack):
        return None
    blocks = [view.module.found() if isinstance(view.module, WholeBlock) else block_of(view) for view in views]
    return None if any(block is None for block in blocks) else tuple(blocks)


def only_block(module: nn.Module, tables: BlockTable) -> Block | None:
    """`module` as a block; None unless it is a plain one."""
    return next((block_of(view) for view in find_blocks(module, tables) if view.module is module), None)


def block_of(view: BlockView) -> Block | None:
    """The parts of a host's block; None unless it is a plain one whose rows depend on each other by attention alone."""
    if not view.is_plain():
        return None
    names = view.names
    block = Block(
        ln_1=view.part("ln_1"),
        qkv=tuple(_projection(view, name) for name in names.qkv),
        out_proj=view.holder(names.out_proj),
        ln_2=view.part("ln_2"),
        fc1=tuple(map(view.holder, names.fc1)),
        act=view.part("act"),
        fc2=view.holder(names.fc2),
        heads=getattr(view.part("attention"), names.heads),
        **{role: view.optional(role) for role in OPTIONAL},
        halves=names.halves,
        rotation=names.rotation(view.module),
    )
    return block if all(map(_by_rows, block.linears)) else None


def _projection(view: BlockView, name: str) -> Rows:
    holder = view.holder(name)
    if not name.endswith("in_proj_weight"):
        return holder
    return holder.in_proj if hasattr(holder, "in_proj") else InProjection(holder)  # after or before `quantize`


def _by_rows(linear: Rows) -> bool:
    """Whether a row's result depends on no other row; a range that all rows share changes with their number."""
    activations = linear.activations if isinstance(linear, QLinear) else None
    return activations is None or activations.granularity != "tensor" or not activations.dynamic
