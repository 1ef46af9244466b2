"""Tiny quantized towers, their rows, and the same blocks in float64 and by the reference kernel."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import fields, replace

import torch
import torch.nn.functional as F
from tiny_models import build
from torch import Tensor, nn

from clipq.arithmetic.schemes import Scheme
from clipq.errors import ClipqWarning
from clipq.methods.quantization import quantize
from clipq.models import Model
from clipq.modules.layers import QLinear
from clipq.towers.rows import Tower
from clipq.towers.sequences import Rotary, Sequences
from clipq.towers.transformer import LayerScale, run_blocks


def model(name: str, precision: str | Scheme = "int8", seed: int = 0, **options: str) -> Model:
    """A tiny model with weights that differ from their initial values, as large as trained ones."""
    module = build(name)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipqWarning)
        return quantize(Model(module), precision, **options)


def tower(name: str, which: str = "image", precision: str | Scheme = "int8", seed: int = 0) -> Tower:
    of = model(name, precision, seed)
    return of.host.tower(of.module, which)


def width(of: Tower) -> int:
    return of.blocks[0].out_proj.out_features


def rows_for(of: Tower, lengths: list[int]) -> tuple[Tensor, Sequences]:
    """Rows with the outliers of a CLIP's residual stream; for blocks that turn by place, any angles of some places."""
    x = torch.randn(sum(lengths), width(of))
    x[:, 3] += 8
    if of.blocks[0].rotation == "none":
        return x, Sequences.of_lengths(torch.tensor(lengths))
    angles = torch.randn(max(lengths), width(of) // of.blocks[0].heads) * 3
    return x, Sequences.of_lengths(torch.tensor(lengths), Rotary(angles.cos(), angles.sin(), 1))


def keeps(sequences: Sequences) -> list[Tensor | None]:
    first, last = sequences.offsets[:-1], sequences.offsets[1:] - 1
    return [None, first, last, (first + last) // 2, last[-1:], last[::2]]


def use(of: Tower, kernel: str | None) -> None:
    for linear in linears(of):
        linear.use_kernel(kernel)


def linears(of: Tower) -> list[QLinear]:
    return [part for block in of.blocks for part in block.linears]


def exact(of: Tower, x: Tensor, sequences: Sequences, keep: Tensor | None) -> Tensor:
    """In float64 with the dequantized int8 weights and activations that nothing rounds."""

    def plain(part: nn.Module | None) -> Callable[[Tensor], Tensor] | None:
        if isinstance(part, QLinear):
            bias = None if part.bias is None else part.bias.double()
            return lambda rows: F.linear(rows, part.weight.double(), bias)
        if isinstance(part, nn.LayerNorm):
            bias = None if part.bias is None else part.bias.double()
            return lambda rows: F.layer_norm(rows, part.normalized_shape, part.weight.double(), bias, part.eps)
        if isinstance(part, LayerScale):
            return lambda rows: part.gamma.double() * rows
        return copy.deepcopy(part).double() if isinstance(part, nn.Module) else part

    blocks = []
    for block in of.blocks:
        names = {field.name for field in fields(block)} - {"qkv", "fc1", "heads", "halves", "rotation"}
        parts = {name: plain(getattr(block, name)) for name in names}
        blocks.append(replace(block, qkv=tuple(map(plain, block.qkv)), fc1=tuple(map(plain, block.fc1)), **parts))
    return run_blocks(blocks, x.double(), sequences, of.causal, keep)


def by_reference(of: Tower, x: Tensor, sequences: Sequences, keep: Tensor | None = None) -> Tensor:
    forced = [linear.forced_kernel for linear in linears(of)]
    use(of, "reference")
    y = run_blocks(of.blocks, x, sequences, of.causal, keep)
    for linear, kernel in zip(linears(of), forced, strict=True):
        linear.use_kernel(kernel)
    return y


def fused(of: Tower, x: Tensor, sequences: Sequences, keep: Tensor | None = None) -> Tensor:
    assert of.stack.fits(x)
    return of.stack(x, sequences, of.causal, keep)


def rms(error: Tensor) -> float:
    return float(error.double().square().mean().sqrt())
