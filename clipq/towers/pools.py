"""Attention pools with one learned query, run by the native library: a picture's row is the same in any batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor, nn

from ..kernels import ops
from ..kernels.cpu import NativeLinear
from ..modules.layers import QLinear
from ..native import library, steps
from ..native.blocks import Norm
from ..native.pooling import AttentionPool, Mlp
from .weights import activation, as_floats, as_matrix, as_norm

_ALL = slice(None)


class QRows:
    """Output rows of an int8 linear. All of them are multiplied by the linear's own packed kernel."""

    def __init__(self, linear: QLinear, rows: slice = _ALL):
        self.linear, self.rows = linear, rows
        self._last: tuple[object, steps.Linear | None] = (object(), None)  # one attribute: threads see both or neither

    def packed(self) -> steps.Linear:
        """As the linear is now."""
        kernel = self.linear.kernel
        if not isinstance(kernel, NativeLinear):
            raise _NotNative
        if self.rows == _ALL:
            return kernel.step
        stamp, packed = self._last
        if stamp is not self.linear.stamp:
            stamp, whole = self.linear.stamp, as_matrix(self.linear)
            parts = {name: getattr(whole, name)[self.rows] for name in ("weight", "scale", "bias")}
            packed = steps.Linear(replace(whole, **parts), kernel.step.path)
            self._last = (stamp, packed)
        return packed


class FloatRows:
    """Output rows of float matrices, one below the other, and of their bias: parameters of `holder`, by their names."""

    def __init__(
        self, holder: nn.Module, weights: Sequence[str], bias: str, rows: slice = _ALL, bias_rows: slice = _ALL
    ):
        self._holder, self._names, self._rows, self._bias_rows = holder, (*weights, bias), rows, bias_rows
        self._last: tuple[list[object], steps.FloatLinear | None] = ([], None)

    def packed(self) -> steps.FloatLinear:
        """As the parameters are now, where torch counts writes to them."""
        *weights, bias = tensors = [getattr(self._holder, name) for name in self._names]
        if not all(one is None or (type(one) in ops.REAL and one.is_cpu) for one in tensors):
            raise _NotNative
        seen, packed = self._last
        now = [(one, None if one is None or one.is_inference() else one._version) for one in tensors]
        if len(seen) != len(now) or any(a is not b or old != new for (a, old), (b, new) in zip(seen, now, strict=True)):
            weight = torch.cat([one.detach() for one in weights])[self._rows]
            packed = steps.FloatLinear(as_floats(weight), None if bias is None else as_floats(bias[self._bias_rows]))
            self._last = (now, packed)
        return packed


class _NotNative(Exception):
    """A part of a pool that the library does not run."""


Rows = QRows | FloatRows


@dataclass(frozen=True)
class PoolMlp:
    """The modules of a pool's MLP, around which its input is added; `norm` before it, or None."""

    norm: nn.Module | None
    fc1: QRows
    act: nn.Module
    fc2: QRows


@dataclass(frozen=True)
class Pool:
    """The modules of an attention pool, never their tensors.

    `query`: gives the learned query, of as many numbers as `q` takes, its projection (None: there is none); `kv`: from
    tokens to keys and values side by side; `proj`: of what attention gives. `norm_query`, `norm_keys`: norms before
    `q` and `kv`, or None.
    """

    heads: int
    query: Callable[[], Tensor]
    q: Rows | None
    kv: Rows
    proj: Rows
    mlp: PoolMlp | None = None
    norm_query: nn.Module | None = None
    norm_keys: nn.Module | None = None

    @property
    def is_partly_int8(self) -> bool:
        return self.mlp is not None or any(isinstance(part, QRows) for part in (self.q, self.kv, self.proj))


def run_pool(pool: Pool, x: Tensor) -> Tensor | None:
    """[batch, tokens, width] to [batch, width] of the same type; None where the library does not run this pool.

    Computed in float32 between the int8 products, whatever the type of `x`.
    """
    if not (x.is_cpu and x.is_floating_point() and library.available()):
        return None
    try:
        native = _packed(pool)
    except _NotNative:
        return None
    if native.kv.inputs != x.shape[-1]:
        return None
    rows = as_floats(x).reshape(-1, x.shape[-1])
    return torch.from_numpy(native(rows, len(x), torch.get_num_threads())).to(x.dtype)


def _packed(pool: Pool) -> AttentionPool:
    """The pool as its modules are now. Their linears are packed already; what else is in it is small."""
    kv, proj, keys = pool.kv.packed(), pool.proj.packed(), _norm(pool.norm_keys)
    return AttentionPool(pool.heads, _query(pool), kv, proj, _mlp(pool.mlp), keys)


def _query(pool: Pool) -> numpy.ndarray:
    """[width], projected: the same for every picture."""
    query, norm = pool.query(), _norm(pool.norm_query)
    if type(query) not in ops.REAL or not query.is_cpu:
        raise _NotNative
    row = as_floats(query).reshape(1, -1)
    row = row if norm is None else steps.layer_norm(row, norm, 1)
    return (row if pool.q is None else pool.q.packed()(row, 1))[0]


def _mlp(mlp: PoolMlp | None) -> Mlp | None:
    if mlp is None:
        return None
    act = activation(mlp.act)
    if act is None:
        raise _NotNative
    return Mlp(_norm(mlp.norm), mlp.fc1.packed(), act, mlp.fc2.packed())


def _norm(part: nn.Module | None) -> Norm | None:
    norm = None if part is None else as_norm(part)
    if part is not None and norm is None:
        raise _NotNative
    return norm
