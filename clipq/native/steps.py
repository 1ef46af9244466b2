"""The native library's steps over numpy arrays: linears, norms, patches, pooling. All floats are float32."""

from __future__ import annotations

import numpy as np

from ..errors import QuantizationError
from .arrays import address, empty, floats
from .blocks import ACTIVATIONS, Matrix, Norm
from .library import MAX_INPUTS, PATHS, check, load, resolved

_LANES = 16  # csrc/kernel.h: WIDEST


class Linear:
    """y = activation(x @ weight.T + bias) with int8 weights and rows quantized as `matrix` says, packed for `path`.

    Raises `UnknownNameError` for a path that cannot run here, `QuantizationError` for rows that are too long.
    """

    def __init__(self, matrix: Matrix, path: str | None = None):
        library, self.path = load(), resolved(path)
        self.index = PATHS.index(self.path)
        self.outputs, self.inputs = matrix.weight.shape
        size = library.clipq_packed_size(self.index, self.outputs, self.inputs)
        if size == 0:
            raise QuantizationError(
                f"a weight {list(matrix.weight.shape)} has too many inputs for exact int32 sums ({MAX_INPUTS})."
            )
        self.packed = empty(size, dtype=np.uint8)
        weight = np.ascontiguousarray(matrix.weight)
        check(library.clipq_pack(self.index, address(weight), self.outputs, self.inputs, address(self.packed)))
        self.scale, self.bias = floats(matrix.scale), None if matrix.bias is None else floats(matrix.bias)
        self.symmetric, self.static = matrix.symmetric, (matrix.input_scale, matrix.input_zero_point)

    def __call__(self, x: np.ndarray, threads: int, activation: str = "none") -> np.ndarray:
        """[rows, inputs] to [rows, outputs]."""
        y = empty(len(x), self.outputs)
        status = load().clipq_linear_step(
            self.index,
            threads,
            address(x),
            self.inputs,
            len(x),
            address(self.packed),
            address(self.scale),
            address(self.bias),
            address(y),
            self.outputs,
            self.outputs,
            self.inputs,
            self.symmetric,
            *self.static,
            ACTIVATIONS.index(activation),
            0,
            None,
        )
        check(status)
        return y


class FloatLinear:
    """y = x @ weight.T + bias in floats: what stays float, such as the projection into the shared space."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None):
        """`weight`: [out, in]."""
        self.outputs, self.inputs = weight.shape
        self._wide = -(-self.outputs // _LANES) * _LANES
        self._weight = empty(self.inputs, self._wide)
        self._weight[:, : self.outputs], self._weight[:, self.outputs :] = weight.T, 0
        self._bias = np.zeros(self._wide, np.float32)
        self._bias[: self.outputs] = 0 if bias is None else bias

    def __call__(self, x: np.ndarray, threads: int) -> np.ndarray:
        """[rows, inputs] to [rows, outputs]."""
        y, library = empty(len(x), self._wide), load()
        arguments = (
            address(x),
            len(x),
            self.inputs,
            address(self._weight),
            address(self._bias),
            self._wide,
            address(y),
        )
        check(library.clipq_float_linear(library.clipq_path(), threads, *arguments))
        return np.ascontiguousarray(y[:, : self.outputs])


AnyLinear = Linear | FloatLinear


def cut_patches(pixels: np.ndarray, patch: tuple[int, int], threads: int) -> np.ndarray:
    """[batch, channels, height, width] to rows [batch * patches, channels * patch[0] * patch[1]]."""
    batch, channels, height, width = pixels.shape
    rows = empty(batch * (height // patch[0]) * (width // patch[1]), channels * patch[0] * patch[1])
    check(load().clipq_cut_patches(threads, address(pixels), *pixels.shape, *patch, address(rows)))
    return rows


def join_tokens(
    patches: np.ndarray, batch: int, prefix: np.ndarray, positions: np.ndarray | None, norm: Norm | None, threads: int
) -> np.ndarray:
    """Rows [batch * (prefix + patches), width]: the rows `prefix`, then a picture's, plus `positions`; normed if asked.

    `patches`: [batch * patches, width]; `prefix`: [tokens, width], positions already added; `positions`: [patches,
    width].
    """
    each, width = len(patches) // batch, patches.shape[1]
    rows = empty(batch * (len(prefix) + each), width)
    check(
        load().clipq_join_tokens(
            threads,
            address(patches),
            batch,
            each,
            width,
            address(prefix),
            len(prefix),
            address(positions),
            None if norm is None else address(norm.weight),
            None if norm is None else address(norm.bias),
            -1.0 if norm is None else norm.eps,
            address(rows),
        )
    )
    return rows


def layer_norm(x: np.ndarray, norm: Norm, threads: int) -> np.ndarray:
    """The LayerNorm of each row of `x` [rows, width]."""
    y = empty(*x.shape)
    arguments = (address(x), x.shape[1], *x.shape, address(norm.weight), address(norm.bias), norm.eps, address(y))
    check(load().clipq_layer_norm(threads, *arguments))
    return y


def pool_attention(query: np.ndarray, kv: np.ndarray, batch: int, heads: int, threads: int) -> np.ndarray:
    """One query [width] over the tokens of each of `batch` sequences of one length: [batch, width].

    `kv`: [batch * tokens, 2 * width], the keys of all heads and then their values.
    """
    library, y, tokens = load(), empty(batch, len(query)), len(kv) // batch
    offsets = np.arange(0, len(kv) + 1, tokens, dtype=np.int64)
    arguments = (address(query), address(kv), address(offsets), batch, heads, len(query) // heads, address(y))
    check(library.clipq_pool_attention(library.clipq_path(), threads, *arguments))
    return y


def gather_rows(table: np.ndarray, scale: np.ndarray, ids: np.ndarray, threads: int) -> np.ndarray:
    """Rows `ids` (int64 [count]) of an int8 `table` [rows, width] with one float32 `scale` a row, as floats."""
    library, y = load(), empty(len(ids), table.shape[1])
    arguments = (address(table), address(scale), *table.shape, address(ids), len(ids), address(y))
    check(library.clipq_gather_rows(library.clipq_path(), threads, *arguments))
    return y
