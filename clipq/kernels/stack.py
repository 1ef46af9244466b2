"""Stacks of transformer blocks in the native library: packed once, then a whole tower is one call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import QuantizationError
from .library import PATHS, check, load, resolved

ACTIVATIONS = ("none", "gelu", "gelu_tanh", "quick_gelu")
"""What may stand between the two linears of an MLP, in the order of `enum clipq_activation` in csrc/clipq.h."""


@dataclass(frozen=True)
class Int8Matrix:
    """int8 `weight` [out, in] with float32 `scale` [out] and `bias` [out] or None.

    `input_scale`, `input_zero_point`: by which its static inputs are quantized; 0: each row by its own range.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    input_scale: float = 0.0
    input_zero_point: int = 0


@dataclass(frozen=True)
class Norm:
    """A LayerNorm over the last axis: `weight` and `bias` [width], `eps`."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class BlockWeights:
    """x += ls_1 * out_proj(attention(qkv(ln_1(x)))), then x += ls_2 * fc2(activation(fc1(ln_2(x)))).

    `qkv` is [3 width, width], the heads of query, key and value one after the other. `ls_1`, `ls_2`: [width] or None.
    """

    heads: int
    ln_1: Norm
    qkv: Int8Matrix
    out_proj: Int8Matrix
    ln_2: Norm
    fc1: Int8Matrix
    activation: str
    fc2: Int8Matrix
    ls_1: Tensor | None
    ls_2: Tensor | None
    symmetric: bool


class _Matrix(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias")),
        ("input_scale", ctypes.c_float),
        ("input_zero_point", ctypes.c_int32),
    ]


class _Block(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("width", "hidden", "heads")),
        *((name, ctypes.c_int32) for name in ("activation", "symmetric")),
        *((name, ctypes.c_float) for name in ("eps_1", "eps_2")),
        *((name, ctypes.c_void_p) for name in ("ln_1_weight", "ln_1_bias", "ln_2_weight", "ln_2_bias")),
        *((name, _Matrix) for name in ("qkv", "out_proj", "fc1", "fc2")),
        *((name, ctypes.c_void_p) for name in ("ls_1", "ls_2")),
    ]


def pack_block(weights: BlockWeights, path: str | None = None) -> Tensor:
    """Everything a block needs, packed for one instruction set: uint8, for this processor and process only.

    Raises `UnknownNameError` for a path that cannot run here, `QuantizationError` for shapes that do not fit.
    """
    keep: list[Tensor] = []  # what the pointers point to
    block = _described(weights, keep)
    index, library = PATHS.index(resolved(path)), load()
    size = library.clipq_block_size(index, ctypes.byref(block))
    if size == 0:
        raise QuantizationError(
            f"a block of width {block.width}, hidden width {block.hidden} and {block.heads} heads cannot be packed."
        )
    packed = torch.empty(size, dtype=torch.uint8)
    check(library.clipq_pack_block(index, ctypes.byref(block), packed.data_ptr()))
    return packed


def run_blocks(x: Tensor, offsets: Tensor, blocks: Sequence[Tensor], causal: bool, keep: Tensor | None) -> Tensor:
    """`x` [rows, width] through packed blocks; see `clipq::blocks` in clipq/kernels/ops.py."""
    pointers = (ctypes.c_void_p * len(blocks))(*(block.data_ptr() for block in blocks))
    return run_packed(x, offsets, pointers, causal, keep)


def run_packed(x: Tensor, offsets: Tensor, blocks: ctypes.Array, causal: bool, keep: Tensor | None) -> Tensor:
    """As `run_blocks`, with the blocks' addresses."""
    rows, offsets = x.float().contiguous(), offsets.contiguous()
    keep = None if keep is None else keep.contiguous()
    y = torch.empty(rows.shape[0] if keep is None else keep.numel(), rows.shape[1])
    if y.numel() == 0:  # an empty tensor has no address, which would say "keep all"
        return y.to(x.dtype)
    status = load().clipq_run_blocks(
        torch.get_num_threads(),
        blocks,
        len(blocks),
        rows.data_ptr(),
        offsets.data_ptr(),
        offsets.numel() - 1,
        causal,
        None if keep is None else keep.data_ptr(),
        0 if keep is None else keep.numel(),
        y.data_ptr(),
    )
    check(status)
    return y if x.dtype == torch.float32 else y.to(x.dtype)


def _described(weights: BlockWeights, keep: list[Tensor]) -> _Block:
    width, hidden = weights.qkv.weight.shape[1], weights.fc1.weight.shape[0]

    def pointer(tensor: Tensor | None, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> int | None:
        if tensor is None:
            return None
        if tuple(tensor.shape) != shape:
            raise QuantizationError(f"{name} of a block has shape {list(tensor.shape)}, not {list(shape)}.")
        keep.append(tensor.detach().to("cpu", dtype).contiguous())
        return keep[-1].data_ptr()

    def vector(tensor: Tensor | None, name: str) -> int | None:
        return pointer(tensor, name, (width,), torch.float32)

    def matrix(one: Int8Matrix, name: str, n: int, k: int) -> _Matrix:
        return _Matrix(
            pointer(one.weight, f"{name} weight", (n, k), torch.int8),
            pointer(one.scale, f"{name} scale", (n,), torch.float32),
            pointer(one.bias, f"{name} bias", (n,), torch.float32),
            one.input_scale,
            one.input_zero_point,
        )

    return _Block(
        width,
        hidden,
        weights.heads,
        ACTIVATIONS.index(weights.activation),
        weights.symmetric,
        weights.ln_1.eps,
        weights.ln_2.eps,
        vector(weights.ln_1.weight, "ln_1 weight"),
        vector(weights.ln_1.bias, "ln_1 bias"),
        vector(weights.ln_2.weight, "ln_2 weight"),
        vector(weights.ln_2.bias, "ln_2 bias"),
        matrix(weights.qkv, "qkv", 3 * width, width),
        matrix(weights.out_proj, "out_proj", width, width),
        matrix(weights.fc1, "fc1", hidden, width),
        matrix(weights.fc2, "fc2", width, hidden),
        vector(weights.ls_1, "ls_1"),
        vector(weights.ls_2, "ls_2"),
    )
