"""Transformer blocks in the native library: packed once, then a whole stack of them is one call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import QuantizationError
from .arrays import address, empty, floats
from .library import PATHS, check, load, resolved

ACTIVATIONS = ("none", "gelu", "gelu_tanh", "quick_gelu", "silu")
"""What may stand between the two linears of an MLP, in the order of `enum clipq_activation` in csrc/clipq.h."""
NORMS = ("layer", "rms")
"""LayerNorm and RMSNorm, in the order of `enum clipq_norm_kind`."""
ROTATIONS = ("none", "pairs", "halves")
"""Which numbers of a head rotary embeddings turn together: neighbours, or i and i + dim / 2 (`enum clipq_rotation`)."""
ATTENTIONS = ("float", "int8")
"""By which products a block attends, in the order of `enum clipq_attention`; short sequences take floats anyway."""
ALL, BEFORE, BUT_LAST = range(3)
"""What a row attends to, as `enum clipq_mask`: its sequence; those up to itself; of these, not the sequence's last."""


@dataclass(frozen=True)
class Matrix:
    """int8 `weight` [out, in] with float32 `scale` [out] and `bias` [out] or None.

    `input_scale`, `input_zero_point`: by which its static inputs are quantized; 0: each row by its own range.
    """

    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray | None
    input_scale: float = 0.0
    input_zero_point: int = 0
    symmetric: bool = False


@dataclass(frozen=True)
class Norm:
    """A norm over the last axis: `weight` [width], `bias` [width] or None, `eps`, and its `kind` of `NORMS`."""

    weight: np.ndarray
    bias: np.ndarray | None
    eps: float
    kind: str = "layer"


@dataclass(frozen=True)
class Rotary:
    """What rotary position embeddings (Su et al., arXiv:2104.09864) multiply queries and keys by.

    `cos`, `sin`: float32 [tokens, width / heads]; row `place` of a sequence takes row place - `prefix` of them, and the
    first `prefix` rows of a sequence stay as they are.
    """

    cos: np.ndarray
    sin: np.ndarray
    prefix: int


@dataclass(frozen=True)
class Block:
    """x += ls_1 * out_proj(attn_norm(attention(qkv(ln_1(x))))); x += ls_2 * fc2(mlp_norm(activation(fc1(ln_2(x))))).

    `qkv` is [3 width, width], the heads of query, key and value one after the other; each head of queries and keys goes
    through `q_norm` and `k_norm`, and is turned as `rotation` says. `gated`: `fc1` is [2 hidden, width], and
    activation(first half) * second half takes the place of the activation. `ls_1`, `ls_2`: [width] or None; norms but
    `ln_1` and `ln_2` may be None. All four linears quantize their inputs alike: with a zero point, or `symmetric`.
    """

    heads: int
    ln_1: Norm
    qkv: Matrix
    out_proj: Matrix
    ln_2: Norm
    fc1: Matrix
    activation: str
    fc2: Matrix
    ls_1: np.ndarray | None
    ls_2: np.ndarray | None
    gated: bool = False
    rotation: str = "none"
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    attn_norm: Norm | None = None
    mlp_norm: Norm | None = None
    attention: str = "float"

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        return self.qkv, self.out_proj, self.fc1, self.fc2


class _Matrix(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias")),
        ("input_scale", ctypes.c_float),
        ("input_zero_point", ctypes.c_int32),
    ]


class _Norm(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
        ("eps", ctypes.c_float),
        ("kind", ctypes.c_int32),
    ]


class _Block(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("width", "hidden", "heads")),
        *((name, ctypes.c_int32) for name in ("activation", "symmetric", "gated", "rotation", "attention")),
        *((name, _Norm) for name in ("ln_1", "ln_2", "q_norm", "k_norm", "attn_norm", "mlp_norm")),
        *((name, _Matrix) for name in ("qkv", "out_proj", "fc1", "fc2")),
        *((name, ctypes.c_void_p) for name in ("ls_1", "ls_2")),
    ]


class _Rotary(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("cos", "sin")),
        *((name, ctypes.c_int64) for name in ("tokens", "dim", "prefix")),
    ]


def pack_block(block: Block, path: str | None = None) -> np.ndarray:
    """Everything a block needs, packed for one instruction set: uint8, for this processor and process only.

    Raises `UnknownNameError` for a path that cannot run here, `QuantizationError` for shapes that do not fit.
    """
    keep: list[np.ndarray] = []  # what the pointers point to
    described = _described(block, keep)
    index, library = PATHS.index(resolved(path)), load()
    size = library.clipq_block_size(index, ctypes.byref(described))
    if size == 0:
        raise QuantizationError(
            f"a block of width {described.width}, hidden width {described.hidden} and {described.heads} heads cannot "
            "be packed."
        )
    packed = empty(size, dtype=np.uint8)
    check(library.clipq_pack_block(index, ctypes.byref(described), address(packed)))
    return packed


def addresses(blocks: Sequence[np.ndarray]) -> ctypes.Array:
    """Those of packed blocks, as `run_blocks` takes them; whoever runs them holds on to the blocks."""
    return (ctypes.c_void_p * len(blocks))(*map(address, blocks))


def run_blocks(
    threads: int,
    blocks: ctypes.Array,
    x: np.ndarray,
    offsets: np.ndarray,
    mask: int,
    keep: np.ndarray | None,
    rotary: Rotary | None = None,
) -> np.ndarray:
    """float32 rows [rows, width] through packed blocks, one after the other.

    `offsets`: int64 [batch + 1]; rows offsets[i]:offsets[i + 1] are sequence i, and attention stays within it: all of
    it, or what `mask` (ALL, BEFORE, BUT_LAST) leaves. `keep`: int64 rows, ascending; then only those of the last
    block's result are computed and come back. `rotary`: for blocks that turn their queries and keys.
    """
    y = empty(len(x) if keep is None else len(keep), x.shape[1])
    tables = None if rotary is None else _tables(rotary)
    if y.size:
        status = load().clipq_run_blocks(
            threads,
            blocks,
            len(blocks),
            address(x),
            address(offsets),
            len(offsets) - 1,
            mask,
            address(keep),
            0 if keep is None else len(keep),
            tables if tables is None else ctypes.byref(tables),
            address(y),
        )
        check(status)
    return y


def _tables(rotary: Rotary) -> _Rotary:
    tokens, dim = rotary.cos.shape
    if rotary.sin.shape != rotary.cos.shape:
        raise QuantizationError(f"rotary tables have the shapes {[tokens, dim]} and {list(rotary.sin.shape)}.")
    return _Rotary(address(rotary.cos), address(rotary.sin), tokens, dim, rotary.prefix)


def _described(block: Block, keep: list[np.ndarray]) -> _Block:
    width, hidden = block.qkv.weight.shape[1], block.fc2.weight.shape[1]
    dim, inner = width // block.heads, hidden * (1 + block.gated)

    def pointer(array: np.ndarray | None, name: str, *shape: int) -> int | None:
        if array is None:
            return None
        if array.shape != shape:
            raise QuantizationError(f"{name} of a block has shape {list(array.shape)}, not {list(shape)}.")
        keep.append(np.ascontiguousarray(array) if array.dtype == np.int8 else floats(array))
        return address(keep[-1])

    def matrix(one: Matrix, name: str, n: int, k: int) -> _Matrix:
        return _Matrix(
            pointer(one.weight, f"{name} weight", n, k),
            pointer(one.scale, f"{name} scale", n),
            pointer(one.bias, f"{name} bias", n),
            one.input_scale,
            one.input_zero_point,
        )

    def norm(one: Norm | None, name: str, size: int) -> _Norm:
        if one is None:
            return _Norm()
        weight = pointer(one.weight, f"{name} weight", size)
        return _Norm(weight, pointer(one.bias, f"{name} bias", size), one.eps, NORMS.index(one.kind))

    return _Block(
        width,
        hidden,
        block.heads,
        ACTIVATIONS.index(block.activation),
        _symmetric(block),
        block.gated,
        ROTATIONS.index(block.rotation),
        ATTENTIONS.index(block.attention),
        norm(block.ln_1, "ln_1", width),
        norm(block.ln_2, "ln_2", width),
        norm(block.q_norm, "q_norm", dim),
        norm(block.k_norm, "k_norm", dim),
        norm(block.attn_norm, "attn_norm", width),
        norm(block.mlp_norm, "mlp_norm", hidden),
        matrix(block.qkv, "qkv", 3 * width, width),
        matrix(block.out_proj, "out_proj", width, width),
        matrix(block.fc1, "fc1", inner, width),
        matrix(block.fc2, "fc2", width, hidden),
        pointer(block.ls_1, "ls_1", width),
        pointer(block.ls_2, "ls_2", width),
    )


def _symmetric(block: Block) -> bool:
    kinds = {matrix.symmetric for matrix in block.matrices}
    if len(kinds) > 1:
        raise QuantizationError("the linears of a block quantize their inputs in two ways; a packed block knows one.")
    return kinds.pop()
