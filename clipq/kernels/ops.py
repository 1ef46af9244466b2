"""The native kernels as `torch.library` ops, so that `torch.compile` and `torch.export` see through them.

    clipq::linear(x, packed, scale, bias, symmetric, path, input_scale, input_zero_point) -> [..., out]
    clipq::blocks(x, offsets, blocks, causal, keep, rotary, prefix, last_unseen) -> [rows or kept, width]

Eager calls go around the dispatcher, which costs some 10 us a call. None of them has a gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from ..errors import QuantizationError
from ..native.library import load
from . import native, stack

REAL = (Tensor, torch.nn.Parameter)
"""Tensors that hold numbers, and not what a compiler puts in their place."""


def traced(x: Tensor) -> bool:
    """Whether a call with `x` is being compiled or exported rather than computed."""
    return torch.compiler.is_compiling() or type(x) not in REAL


def refuse_gradient(x: Tensor) -> None:
    """Raise `QuantizationError` if a gradient is asked for with respect to `x`."""
    if x.requires_grad and torch.is_grad_enabled():
        raise QuantizationError(
            "int8 kernels have no gradient: call the model under torch.inference_mode() or torch.no_grad(), "
            "or detach its input; to train, load it with precision='fp32'."
        )


def refuse_tracing() -> None:
    """Raise `QuantizationError` within `torch.jit.trace`, which records torch's operators and no call of a library."""
    if torch.jit.is_tracing():
        raise QuantizationError(
            "torch.jit.trace and torch.onnx.export(dynamo=False) would record the result of this one int8 call as a "
            "constant, the same for every input. Use torch.export.export, which keeps clipq's operators; "
            "to ONNX and other runtimes, `clipq export` or clipq.export(model, folder, to='onnx')."
        )


@custom_op("clipq::linear", mutates_args=(), device_types="cpu")
def linear(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    symmetric: bool,
    path: int,
    input_scale: float = 0.0,
    input_zero_point: int = 0,
) -> Tensor:
    """`PackedLinear` with its parts as arguments: `packed` uint8, `scale` and `bias` float32 [out].

    `input_scale`, `input_zero_point`: those of static activations; 0: each row is quantized by its own range.

    Raises `QuantizationError` for arguments that do not fit together.
    """
    _require(scale.ndim == 1, "scale", scale, "float32 [out]")
    _require_plain("packed", packed, torch.uint8)
    for name, values in (("scale", scale), ("bias", scale if bias is None else bias)):
        _require_plain(name, values, torch.float32)
        _require(values.shape == scale.shape, name, values, f"as long as scale, {scale.shape[0]}")
    return native.linear(x, packed, scale, bias, symmetric, path, input_scale, input_zero_point)


@linear.register_fake
def _(x: Tensor, packed: Tensor, scale: Tensor, *settings: object) -> Tensor:
    return x.new_empty(*x.shape[:-1], scale.shape[0])


def call_linear(packed: native.PackedLinear, x: Tensor) -> Tensor:
    """`packed(x)` through the op, which cannot tell by the packed bytes how many features a row should have."""
    if x.shape[-1] != packed.in_features:
        raise QuantizationError(f"an input of {x.shape[-1]} features does not fit a linear of {packed.in_features}.")
    return linear(x, packed.packed, packed.scale, packed.bias, packed.symmetric, packed.index, *packed.static)


@custom_op("clipq::blocks", mutates_args=(), device_types="cpu")
def blocks(
    x: Tensor,
    offsets: Tensor,
    blocks: list[Tensor],
    causal: bool,
    keep: Tensor | None,
    rotary: Tensor | None = None,
    prefix: int = 0,
    last_unseen: bool = False,
) -> Tensor:
    """Transformer blocks, packed by `stack.pack_block`, over `x` [rows, width].

    Rows offsets[i]:offsets[i + 1] (int64 [batch + 1]) are sequence i, and attention stays within it. `keep`: int64
    rows, ascending; then only those of the last block's result are computed and come back. `rotary`: [2, tokens,
    width / heads], cosines and sines of rotary embeddings for the rows of a sequence after the first `prefix`.
    `last_unseen`: of a causal stack, whose sequences' last row is attended to by none.
    Raises `QuantizationError` for arguments that do not fit together.
    """
    _require(x.ndim == 2 and x.is_floating_point() and x.is_cpu, "x", x, "floats [rows, width] on the CPU")
    for name, values in (("offsets", offsets), ("keep", offsets if keep is None else keep)):
        _require_plain(name, values, torch.int64)
    whole = offsets.numel() > 0 and int(offsets[-1]) == x.shape[0]
    _require(whole, "offsets", offsets, f"at least one number, the last of them {x.shape[0]}, the rows of x")
    for block in blocks:
        _require_plain("a block", block, torch.uint8)
        width = load().clipq_block_width(block.data_ptr(), block.numel())
        _require(width == x.shape[1], "a block", block, f"packed by this process, of width {x.shape[1]}")
    tables = None
    if rotary is not None:
        fits = rotary.ndim == 3 and len(rotary) == 2 and rotary.is_cpu and rotary.is_floating_point()
        _require(fits, "rotary", rotary, "floats [2, tokens, width / heads] on the CPU")
        tables = (*rotary.unbind(0), prefix)
    return stack.run_packed(x, offsets, stack.pointers(blocks), int(causal) + last_unseen, keep, tables)


@blocks.register_fake
def _(x: Tensor, offsets: Tensor, blocks: list[Tensor], causal: bool, keep: Tensor | None, *settings: object) -> Tensor:
    return x.new_empty(x.shape[0] if keep is None else keep.shape[0], x.shape[1])


def _require_plain(name: str, values: Tensor, dtype: torch.dtype) -> None:
    plain = values.is_cpu and values.dtype == dtype and values.ndim == 1 and values.is_contiguous()
    _require(plain, name, values, f"contiguous {dtype} [n] on the CPU")


def _require(fits: bool, name: str, values: Tensor, wanted: str) -> None:
    if not fits:
        found = f"{values.dtype} {list(values.shape)} on {values.device}"
        raise QuantizationError(f"{name} of a native op is {found}; it must be {wanted}.")


def _no_gradient(context: Any, *gradients: Tensor) -> None:
    raise QuantizationError("int8 kernels have no gradient; to train, load the model with precision='fp32'.")


for _op in (linear, blocks):
    _op.register_autograd(_no_gradient)
