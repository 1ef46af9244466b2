"""Embeddings of calibration data, and the residual stream on the way to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..hosts import Host
from ..inputs.images import spread
from ..methods.dtypes import tower_dtype
from ..towers.blocks import BlockView, find_blocks

Inputs = Mapping[str, Sequence[Tensor]]
"""Batches for each tower: pixels [n, channels, height, width] or token ids [n, tokens]."""


@torch.no_grad()
def embedded(module: nn.Module, host: Host, tower: str, batches: Sequence[Tensor]) -> Tensor:
    """float32 [n, width] of all inputs."""
    return torch.cat([_encoded(module, host, tower, batch) for batch in batches])


def _encoded(module: nn.Module, host: Host, tower: str, batch: Tensor) -> Tensor:
    if tower == "text":
        return host.encode_text(module, batch).float()
    return host.encode_image(module, batch.to(tower_dtype(module, host, tower))).float()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within, `module` computes as for inference; afterwards what trained trains again."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def divided(batches: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs at even places, and those at odd ones; all of them twice where there is only one."""
    whole = torch.cat(list(batches))
    size = len(batches[0])
    halves = (whole[0::2], whole[1::2]) if len(whole) > 1 else (whole, whole)
    return tuple(list(half.split(size)) for half in halves)


def fewer(batches: Sequence[Tensor], most: int) -> list[Tensor]:
    """At most `most` of the inputs, evenly chosen."""
    whole = torch.cat(list(batches))
    return list(whole[spread(len(whole), most)].split(len(batches[0])))


def blocks_of(module: nn.Module, host: Host, tower: str) -> list[BlockView]:
    """The blocks of a tower, in order; none that lies within another."""
    found: list[BlockView] = []
    for view in find_blocks(module, host.blocks):
        inside = any(view.name.startswith(f"{one.name}.") for one in found)
        if not inside and host.tower_of(module, view.name) == tower:
            found.append(view)
    return found


@torch.no_grad()
def streams(module: nn.Module, host: Host, tower: str, batch: Tensor) -> list[Tensor]:
    """What each block of a tower gives for a batch: the residual stream, in whatever shape the host has it."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        found.append((output if isinstance(output, Tensor) else output[0]).detach().float().clone())

    with _hooked(blocks_of(module, host, tower), keep):
        _encoded(module, host, tower, batch)
    return found


@contextmanager
def _hooked(views: Sequence[BlockView], hook: Callable[..., None]) -> Iterator[None]:
    handles = [view.module.register_forward_hook(hook) for view in views]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
