"""The quantized modules: `QLinear` and `QEmbedding`. Buffers, no tensor subclasses, no gradient.

The buffer of integers is `qweight`; `weight` is a property that dequantizes, because hosts look at a layer's weight:
open_clip reads `c_fc.weight.dtype` for its text tower's precision (and first `int8_original_dtype`, which is here
too), transformers reads `patch_embedding.weight.dtype`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..arithmetic import functional, packing
from ..arithmetic.schemes import Scheme
from ..arithmetic.specs import QuantSpec
from ..errors import DataError, QuantizationError
from ..kernels import native
from ..kernels.ops import REAL, traced
from ..native import library
from .save_guard import refuse_foreign_saving
from .tracing import fx_leaf

EXACT = ("weight_scale", "weight_zero_point", "input_scale", "input_zero_point")
"""The buffers that quantization added."""
KEPT = ("qweight", *EXACT)
"""Tensors that no cast of the surroundings changes; fp8 numbers are floats to torch, too."""

_Prepare = TypeVar("_Prepare", bound=Callable[..., None])


class QuantizedModule(nn.Module):
    """A `qweight` with its `weight_scale` and, if asymmetric, `weight_zero_point`.

    `qweight` is int8 in the shape of the weight, or for fewer than 8 bits packed: uint8 [out, bytes], in memory as on
    disk, so that neither ever holds more. `spec` is the one given, fitted to the width of the rows.
    `compute_dtype` is the precision of what surrounds the layer. A weight on the meta device gives empty tensors of
    the right shapes, to be assigned by the checkpoint reader.
    """

    def __init__(self, weight: Tensor, spec: QuantSpec, name: str):
        super().__init__()
        self.weight_shape = tuple(weight.shape)
        self.spec = spec = spec.fitted(weight[0].numel(), name)
        self.compute_dtype = weight.dtype
        rows = weight.detach().reshape(weight.shape[0], -1)
        q, scale, zero_point = _empty(rows, spec) if weight.is_meta else functional.quantize_weight(rows, spec, name)
        self.register_buffer("qweight", self._stored(q))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero_point", zero_point)

    def _stored(self, q: Tensor) -> Tensor:
        """int8 [out, in] as `qweight` holds it."""
        if not self.spec.is_packed:
            return q.reshape(self.weight_shape)
        if q.is_meta:
            return q.new_empty(len(q), packing.packed_width(q.shape[1], self.spec.bits), dtype=torch.uint8)
        return packing.pack(q - self.spec.qmin, self.spec.bits)

    def set_integers(self, q: Tensor, scale: Tensor, zero_point: Tensor | None) -> None:
        """Take int8 values [out, in], scale and zero point, of the shapes of `functional.quantize_weight`."""
        self.qweight = self._stored(q)
        self.weight_scale = functional.stored(scale, self.spec)
        self.weight_zero_point = None if self.spec.symmetric else functional.stored_zero_point(zero_point, self.spec)

    def stored_weight(self) -> list[Tensor]:
        """The tensors that stand for the weight: integers, scales, zero points."""
        tensors = (self.qweight, self.weight_scale, self.weight_zero_point)
        return [tensor for tensor in tensors if tensor is not None]

    def kernel_weights(self, bias: Tensor | None = None, activations: QuantSpec | None = None) -> kernels.LinearWeights:
        rows, inputs = self.qweight.reshape(self.qweight.shape[0], -1), prod(self.weight_shape[1:])
        ranges = (self._buffers.get("input_scale"), self._buffers.get("input_zero_point"))
        parts = (self.weight_scale, self.weight_zero_point, bias, self.spec, activations)
        return kernels.LinearWeights(rows, *parts, inputs, *ranges)

    @property
    def weight(self) -> Tensor:
        """What the integers stand for, in `compute_dtype` and the original shape; made anew at each call."""
        return self._dequantized()

    def _dequantized(self) -> Tensor:
        return self.kernel_weights().dequantized().reshape(self.weight_shape).to(self.compute_dtype)

    @property
    def int8_original_dtype(self) -> torch.dtype:
        return self.compute_dtype

    def _save_to_state_dict(self, *arguments: Any) -> None:
        refuse_foreign_saving()
        super()._save_to_state_dict(*arguments)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedModule:
        # `.half()` and the like change the surroundings' precision; scales keep theirs, or they would lose bits.
        before = {name: self._buffers[name] for name in KEPT if self._buffers.get(name) is not None}
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            if self._buffers[name].dtype != tensor.dtype:
                self._buffers[name] = tensor.to(self._buffers[name].device)
        self.compute_dtype = fn(torch.empty(0, dtype=self.compute_dtype)).dtype
        return self


def _empty(rows: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of the shapes that `functional.quantize_weight` gives for `rows` on the meta device."""
    if spec.stores_values:
        scale = rows.new_empty(rows.shape[0] if spec.granularity == "channel" else 1, 1 << spec.bits)
    else:
        scale = functional.choose_qparams(rows, replace(spec, bits=8, codebook=None, float_zero_point=False))[0]
    zero_point = None if spec.symmetric else functional.stored_zero_point(scale, spec)
    return torch.empty_like(rows, dtype=functional.STORED[spec.kind]), scale, zero_point


class QLinear(QuantizedModule):
    """An `nn.Linear` with quantized weights [out, in] and, unless weight-only, int8 activations.

    They are quantized by a range measured at run time or, static, by `input_scale` (float32 [1]) and, if asymmetric,
    `input_zero_point` (int8 [1]).

    Maps [..., in] to [..., out] in the input's dtype. Products are summed in int32 (fast kernels) or float32
    (reference); scale and bias are applied in float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scheme: Scheme, name: str = "weight"):
        super().__init__(weight, scheme.weights, name)
        self.out_features, self.in_features = weight.shape[0], weight[0].numel()
        self.activations = scheme.activations
        self.attention = scheme.attention  # for whoever runs the whole block that this is a part of
        self._register_range(weight.device)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.forced_kernel: str | None = None
        self._kernel: kernels.Kernel | None = None
        self.stamp = 0

    @classmethod
    def from_float(cls, linear: nn.Linear, scheme: Scheme, name: str = "linear") -> QLinear:
        return cls(linear.weight, linear.bias, scheme, f"{name}.weight")

    def _register_range(self, device: torch.device) -> None:
        """The buffers for the range of static activations, NaN until a step or a file puts one there."""
        static = self.activations is not None and not self.activations.dynamic
        asymmetric = static and not self.activations.symmetric
        self.register_buffer("input_scale", torch.full((1,), torch.nan, device=device) if static else None)
        zero_point = torch.zeros(1, dtype=torch.int8, device=device) if asymmetric else None
        self.register_buffer("input_zero_point", zero_point)

    def use_kernel(self, name: str | None) -> None:
        """Force a kernel by name, or let the device and the scheme decide (None)."""
        self.forced_kernel = name
        self.drop_kernel()

    def drop_kernel(self) -> None:
        """Forget the packed kernel: the next call packs anew. A new `stamp` tells whoever else packed the tensors."""
        self._kernel, self.stamp = None, object()

    @property
    def kernel(self) -> kernels.Kernel:
        """The packed kernel, made at the first call and dropped when the module moves or its tensors are loaded."""
        _pack_once(self)
        return self._kernel

    def pack(self) -> None:
        """Pack now; else the first call does."""
        _pack_once(self)

    def kernel_name(self) -> str:
        """Which kernel runs this layer where it is now."""
        weights = self.kernel_weights(self.bias, self.activations)
        return self.forced_kernel or kernels.label(kernels.chosen(self.qweight.device, weights))

    @fx_leaf
    def forward(self, x: Tensor) -> Tensor:
        return self.kernel(x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QLinear:
        self.drop_kernel()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.drop_kernel()
        super()._load_from_state_dict(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernel": None}  # packed for this process and machine; packed again after a copy

    def extra_repr(self) -> str:
        mode = "weight-only" if self.activations is None else f"activations={self.activations}"
        mode = mode if self.spec.label == "int8" else f"{self.spec.label}, {mode}"
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {mode}"


def run_by_compiler(prepare: _Prepare) -> _Prepare:
    """Let `torch.compile` run `prepare` while it traces instead of tracing it: it packs once, and calls into a library.

    What `torch.compiler.assume_constant_result` does, which would import the compiler for all who never compile.
    """
    prepare._dynamo_marked_constant = True
    return prepare


@run_by_compiler
def _pack_once(layer: QLinear) -> None:
    if layer._kernel is not None:
        return
    if type(layer.qweight) not in REAL:
        raise QuantizationError(
            f"an int8 layer cannot pack a {type(layer.qweight).__name__}: call the model once, then export it "
            "(or pass strict=True to torch.export.export)."
        )
    weights = layer.kernel_weights(layer.bias, layer.activations)
    layer._kernel = kernels.pack(weights, layer.forced_kernel)


class QEmbedding(QuantizedModule):
    """An `nn.Embedding` [rows, width] in int8 with one scale a row: gather, then dequantize what was gathered.

    Raises `DataError` for ids that are not int64 or int32, `IndexError` for an id that is not a row.
    """

    @classmethod
    def from_float(cls, embedding: nn.Embedding, scheme: Scheme, name: str = "embedding") -> QEmbedding:
        return cls(embedding.weight, scheme.embeddings, f"{name}.weight")

    @property
    def num_embeddings(self) -> int:
        return self.qweight.shape[0]

    @property
    def embedding_dim(self) -> int:
        return self.qweight.shape[1]

    @fx_leaf
    def forward(self, ids: Tensor) -> Tensor:
        if ids.dtype not in (torch.int64, torch.int32):  # the native gather would cut a fraction off
            raise DataError(f"token ids are whole numbers, of type torch.int64 or torch.int32, not {ids.dtype}.")
        recorded = traced(ids) or torch.jit.is_tracing()
        if not recorded and ids.is_cpu and self.qweight.is_cpu and library.available():
            return native.gather_rows(self.qweight, self.weight_scale, ids).to(self.compute_dtype)
        return (F.embedding(ids, self.qweight) * F.embedding(ids, self.weight_scale)).to(self.compute_dtype)
