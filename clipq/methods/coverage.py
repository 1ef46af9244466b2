"""`coverage`: what share of a model is quantized, to how many bits, per tower, and what stayed float and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..hosts import Host, find_host, unwrapped
from ..modules.layers import QLinear
from ..modules.state import Slot, weights
from ..towers.blocks import find_blocks
from .dtypes import tower_dtype
from .recipes import Recipe, stated_recipe

EXCEPTION = "an exception of the scheme"


@dataclass(frozen=True)
class LeftFloat:
    """A matrix weight that stayed float; `intended` says whether clipq means it to."""

    name: str
    weights: int
    why: str
    intended: bool
    is_embedding: bool


@dataclass(frozen=True)
class TowerCoverage:
    """Counts of one tower: weights of tensors with two dimensions or more, those of its blocks, multiply-accumulates.

    The multiply-accumulates are for one image or one text of full length, attention's own products included
    (they stay float); None where the input's shape is not known. `weights_of`: how many of the quantized weights are of
    each kind ("int8", "int4", "nf4", ...), the most first. `bits_per_weight`: what these take in a file, on average,
    with their scales, zero points and codebooks.
    """

    matrix_weights: int
    quantized_weights: int
    block_weights: int
    quantized_block_weights: int
    macs: int | None
    quantized_macs: int | None
    left_float: tuple[LeftFloat, ...]
    weights_of: dict[str, int]
    bits_per_weight: float

    @property
    def weight_share(self) -> float:
        return self.quantized_weights / max(self.matrix_weights, 1)

    @property
    def block_share(self) -> float:
        return self.quantized_block_weights / self.block_weights if self.block_weights else 0.0

    @property
    def mac_share(self) -> float | None:
        return None if not self.macs else self.quantized_macs / self.macs


@dataclass(frozen=True)
class Coverage:
    """The coverage of each tower, and of the whole model."""

    towers: dict[str, TowerCoverage]

    @property
    def weight_share(self) -> float:
        return sum(t.quantized_weights for t in self.towers.values()) / max(
            sum(t.matrix_weights for t in self.towers.values()), 1
        )

    @property
    def block_share(self) -> float:
        blocks = sum(t.block_weights for t in self.towers.values())
        return sum(t.quantized_block_weights for t in self.towers.values()) / blocks if blocks else 0.0

    def __str__(self) -> str:
        return "\n".join(_lines(name, tower) for name, tower in self.towers.items())


def _lines(name: str, tower: TowerCoverage) -> str:
    macs = "not counted" if tower.mac_share is None else f"{tower.mac_share:.1%}"
    shares = f"{tower.weight_share:.1%} of matrix weights, {tower.block_share:.1%} of block weights"
    kinds = list(tower.weights_of) or ["int8"]
    head = f"{name}: {kinds[0] if len(kinds) == 1 else 'quantized'} {shares}, {macs} of MACs"
    return "\n".join(
        [
            head,
            *_mixture(tower),
            *(f"  float: {left.name} ({left.weights:,} weights): {left.why}" for left in tower.left_float),
        ]
    )


def _mixture(tower: TowerCoverage) -> list[str]:
    """A line about the integers, where they are not all int8."""
    if list(tower.weights_of) in ([], ["int8"]):
        return []
    shares = (f"{count / tower.quantized_weights:.1%} {label}" for label, count in tower.weights_of.items())
    return [f"  {', '.join(shares)}; {tower.bits_per_weight:.2f} bits a weight with scales and zero points"]


def coverage(model: Any, *, count_macs: bool = True) -> Coverage:
    """What share of `model` (a host's module or a `clipq.Model`) is quantized, per tower; what stayed float and why."""
    module = unwrapped(model) if isinstance(model, nn.Module) else model.module
    host = find_host(module)
    return Coverage({tower: _tower(module, host, tower, count_macs) for tower in host.towers(module)})


def _tower(module: nn.Module, host: Host, tower: str, count_macs: bool) -> TowerCoverage:
    matrices = {
        name: slot
        for name, slot in weights(module).items()
        if host.tower_of(module, name) == tower and _is_matrix(slot)
    }
    in_blocks = {name for block in find_blocks(module, host.blocks) for name in block.weights()}
    quantized = [slot for slot in matrices.values() if slot.is_quantized]
    blocks = [slot for name, slot in matrices.items() if name in in_blocks]
    recipe = stated_recipe(module)
    left = [_left_float(module, host, name, slot, recipe) for name, slot in matrices.items() if not slot.is_quantized]
    macs = _count_macs(module, host, tower) if count_macs else (None, None)
    return TowerCoverage(
        matrix_weights=_total(matrices.values()),
        quantized_weights=_total(quantized),
        block_weights=_total(blocks),
        quantized_block_weights=_total(slot for slot in blocks if slot.is_quantized),
        macs=macs[0],
        quantized_macs=macs[1],
        weights_of=_kinds(quantized),
        bits_per_weight=_bits(quantized),
        left_float=tuple(sorted(left, key=lambda item: -item.weights)),
    )


def _is_matrix(slot: Slot) -> bool:
    return (slot.tensor.is_floating_point() or slot.is_quantized) and sum(size > 1 for size in slot.shape) >= 2


def _total(chosen: Any) -> int:
    return sum(prod(slot.shape) for slot in chosen)


def _kinds(quantized: list[Slot]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for slot in quantized:
        counts[slot.module.spec.label] += prod(slot.shape)
    return dict(counts.most_common())


def _bits(quantized: list[Slot]) -> float:
    tensors = [tensor for slot in quantized for tensor in slot.module.stored_weight()]
    return 8 * sum(tensor.nbytes for tensor in tensors) / max(_total(quantized), 1)


def _left_float(module: nn.Module, host: Host, name: str, slot: Slot, recipe: Recipe | None) -> LeftFloat:
    why = host.kept_float(module, name) or _asked_for(host.tower_of(module, name), name, recipe)
    owner = type(slot.module).__name__
    intended = why is not None or not isinstance(
        slot.module, (nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.Conv2d)
    )
    if why is None:
        why = "parameter used directly by the host" if intended else f"{owner} of a kind clipq does not quantize"
    return LeftFloat(name, prod(slot.shape), why, intended, isinstance(slot.module, nn.Embedding))


def _asked_for(tower: str | None, name: str, recipe: Recipe | None) -> str | None:
    """What to say of a weight whose module an exception of the scheme keeps float; None for any other."""
    if recipe is None or tower not in recipe.schemes or recipe.schemes[tower].is_float:
        return None
    module = name.rpartition(".")[0]
    either = (module, module.rpartition(".")[0])  # an attention is quantized as a whole, its projections included
    return EXCEPTION if any(recipe.at(tower, one).is_float for one in either) else None


def _count_macs(module: nn.Module, host: Host, tower: str) -> tuple[int | None, int | None]:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    call = _example_call(module, host, tower)
    if call is None:
        return None, None
    # The math backend makes attention out of plain products, which the counter knows on every device.
    flops = FlopCounterMode(display=False)
    with torch.inference_mode(), _counting(module) as quantized, flops, sdpa_kernel(SDPBackend.MATH):
        call()
    return quantized[0] + flops.get_total_flops() // 2, quantized[0]


def _example_call(module: nn.Module, host: Host, tower: str) -> Any:
    device = next(module.parameters()).device
    if tower == "image":
        shape = host.pixel_shape(module)
        pixels = (
            None if shape is None else torch.zeros(1, *shape, device=device, dtype=tower_dtype(module, host, tower))
        )
        return None if pixels is None else lambda: host.encode_image(module, pixels)
    tokens = torch.zeros(1, host.context_length(module), dtype=torch.long, device=device)
    return lambda: host.encode_text(module, tokens)


@contextmanager
def _counting(module: nn.Module) -> Iterator[list[int]]:
    """Within, quantized linears only count their multiply-accumulates (into the one-element list) and return zeros."""
    total = [0]
    linears = [part for part in module.modules() if isinstance(part, QLinear)]

    def counter(layer: QLinear) -> Any:
        def count(x: Tensor) -> Tensor:
            total[0] += x.numel() * layer.out_features
            return x.new_zeros(*x.shape[:-1], layer.out_features)

        return count

    kernels_before = [layer._kernel for layer in linears]
    for layer in linears:
        layer._kernel = counter(layer)
    try:
        yield total
    finally:
        for layer, kernel in zip(linears, kernels_before, strict=True):
            layer._kernel = kernel
