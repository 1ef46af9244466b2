"""Kernels that compute nothing: they record, in ONNX operators, what a quantized linear computes.

A `QLinear` is exported by giving it one of these in place of the kernel that runs it, so that whatever else its module
does (cutting patches, splitting heads) is exported as it is. Integers stay integers: they become initializers.
Shapes as in ONNX: weights are [in, out]. Operators: https://onnx.ai/onnx/operators, and ONNX Runtime's own
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arithmetic.specs import QuantSpec
from ..kernels.weights import LinearWeights

_MICROSOFT = 1  # the version of ONNX Runtime's own operators


def record(operator: str, inputs: Sequence[Tensor | None], dtype: torch.dtype, shape: Sequence, **attributes) -> Tensor:
    """What stands for the result of an ONNX operator ("Round", "com.microsoft::MatMulNBits") while a model is traced.

    `shape` and `dtype`: of the result. The numbers themselves are never computed here.
    """
    version = _MICROSOFT if "::" in operator else None
    return torch.onnx.ops.symbolic(operator, inputs, attributes, dtype=dtype, shape=shape, version=version)


class Recorded(nn.Module):
    """Common to all: the bias, and the precision of what comes in and goes out."""

    def __init__(self, weights: LinearWeights):
        super().__init__()
        self.out_features, self.in_features = weights.shape
        bias = None if weights.bias is None else weights.bias.detach().float()
        self.register_buffer("bias", bias)

    def with_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias


PLAIN_DOMAIN = "clipq"
"""Of the operator that no runtime has: a converter of clipq's own finds it in the graph and replaces it."""


class PlainIntegers(Recorded):
    """`clipq.Linear`: integers int8 [out, in], scales and zero points float32 [out, blocks], as they are.

    Attribute: the `bits` of the integers.
    """

    def __init__(self, weights: LinearWeights):
        super().__init__(weights)
        rows, self.bits = weights.shape[0], weights.spec.bits
        self.register_buffer("weight", weights.integers.contiguous())
        scale = weights.row_scale() if weights.row_scaled else weights.scale.float()
        self.register_buffer("scale", scale.reshape(rows, -1).contiguous())
        zero_point = None if weights.zero_point is None else weights.zero_point.float()
        if zero_point is not None:
            zero_point = zero_point.reshape(rows, -1).expand_as(self.scale).contiguous()
        self.register_buffer("zero_point", zero_point)

    def forward(self, x: Tensor) -> Tensor:
        inputs = (x.float(), self.weight, self.scale, *(() if self.zero_point is None else (self.zero_point,)))
        shape = (*x.shape[:-1], self.out_features)
        y = record(f"{PLAIN_DOMAIN}::Linear", inputs, torch.float32, shape, bits=self.bits)
        return self.with_bias(y).to(x.dtype)


class DequantizedWeights(Recorded):
    """`DequantizeLinear` of an int8 weight, one scale a channel, before a float product."""

    def __init__(self, weights: LinearWeights):
        super().__init__(weights)
        self.register_buffer("weight", weights.integers.t().contiguous())
        self.register_buffer("scale", weights.row_scale())

    def dequantized(self) -> Tensor:
        return record("DequantizeLinear", (self.weight, self.scale), torch.float32, self.weight.shape, axis=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.with_bias(torch.matmul(x.float(), self.dequantized())).to(x.dtype)


class StaticIntegers(DequantizedWeights):
    """QDQ: `QuantizeLinear` and `DequantizeLinear` of the input by the range that was measured, then of the weight.

    Every runtime knows the pattern, and multiplies integers where it can.
    """

    def __init__(self, weights: LinearWeights):
        super().__init__(weights)
        scale, zero_point = weights.static_range()
        integers = torch.float8_e4m3fn if weights.activations.kind == "float" else torch.int8
        self.register_buffer("input_scale", torch.tensor(scale))
        self.register_buffer("input_zero_point", torch.tensor(zero_point, dtype=torch.float32).to(integers))

    def forward(self, x: Tensor) -> Tensor:
        range_of_inputs = (self.input_scale, self.input_zero_point)
        q = record("QuantizeLinear", (x.float(), *range_of_inputs), self.input_zero_point.dtype, x.shape)
        rows = record("DequantizeLinear", (q, *range_of_inputs), torch.float32, x.shape)
        return self.with_bias(torch.matmul(rows, self.dequantized())).to(x.dtype)


class DynamicIntegers(Recorded):
    """Each row of the input quantized by its own range, and an integer product: clipq's own int8, number for number.

    `QuantizeLinear` takes the rows for an axis with a scale each. The product takes no zero point a row: the sums of
    the weight's columns, known before, stand in for it, and with the bias are a product of rank two. Inputs are
    unsigned bytes and weights signed ones, the pair that VNNI multiplies: two unsigned take twice to four times as
    long. On processors without VNNI ONNX Runtime's product of that pair may saturate; its session option
    session.x64quantprecision=1 makes it exact there.
    """

    def __init__(self, weights: LinearWeights):
        super().__init__(weights)
        self.spec: QuantSpec = weights.activations
        scale, integers = weights.row_scale(), weights.integers.t().contiguous()
        self.register_buffer("weight", integers)
        self.register_buffer("scale", scale)
        self.register_buffer("one", torch.tensor(1.0))
        bias = torch.zeros_like(scale) if self.bias is None else self.bias
        self.register_buffer("border", torch.stack([integers.sum(0) * scale, bias]))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.float().reshape(-1, self.in_features)
        scale, zero_point = self._range(rows)
        ranges = (scale.squeeze(-1), zero_point.squeeze(-1).to(torch.uint8))
        q = record("QuantizeLinear", (rows, *ranges), torch.uint8, rows.shape, axis=0)
        shape = (rows.shape[0], self.out_features)
        inputs = (q, self.weight, self.one, self.scale)
        product = record("com.microsoft::MatMulIntegerToFloat", inputs, torch.float32, shape)
        border = torch.cat([-zero_point * scale, torch.ones_like(scale)], dim=-1)
        y = product * scale + torch.matmul(border, self.border)
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    def _range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point [..., 1], as `functional.qparams_of` has them, moved by 128 to unsigned bytes."""
        if self.spec.symmetric:
            scale = _no_zero(rows.abs().amax(-1, keepdim=True) / self.spec.qmax)
            return scale, torch.full_like(scale, 128.0)
        low = rows.amin(-1, keepdim=True).clamp(max=0)
        scale = _no_zero((rows.amax(-1, keepdim=True).clamp(min=0) - low) / 255)
        return scale, (-torch.round(low / scale)).clamp(0, 255)


def _no_zero(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 1.0, scale.clamp(min=torch.finfo(torch.float32).tiny))


class BlockedWeights(Recorded):
    """ONNX Runtime's `MatMulNBits`: weights of 8 or 4 bits with a scale for each block of inputs, a float product.

    A scale of a whole channel is given to every block of it. Zero points are float32, so that real ones fit.
    """

    def __init__(self, weights: LinearWeights):
        super().__init__(weights)
        spec, (rows, width) = weights.spec, weights.shape
        self.bits, self.block = spec.bits, spec.group_size or _block(width)
        blocks = -(-width // self.block)
        padded = F.pad(weights.integers, (0, blocks * self.block - width))
        unsigned = (padded.to(torch.int16) - _lowest(spec)).to(torch.uint8).reshape(rows, blocks, self.block)
        packed = unsigned if self.bits == 8 else unsigned[..., 0::2] | (unsigned[..., 1::2] << 4)
        self.register_buffer("weight", packed.contiguous())
        self.register_buffer("scale", _each_block(weights.scale, rows, blocks))
        zero_point = None
        if weights.zero_point is not None:
            zero_point = _each_block(weights.zero_point.float() - _lowest(spec), rows, blocks)
        self.register_buffer("zero_point", zero_point)

    def forward(self, x: Tensor) -> Tensor:
        inputs = (x.float(), self.weight, self.scale, *(() if self.zero_point is None else (self.zero_point,)))
        shape = (*x.shape[:-1], self.out_features)
        sizes = {"K": self.in_features, "N": self.out_features, "bits": self.bits, "block_size": self.block}
        return self.with_bias(record("com.microsoft::MatMulNBits", inputs, torch.float32, shape, **sizes)).to(x.dtype)


def _lowest(spec: QuantSpec) -> int:
    """The integer that becomes 0; without zero points `MatMulNBits` takes the middle, 2^(bits - 1), for zero."""
    return -(1 << (spec.bits - 1))


def _block(width: int) -> int:
    """The largest block that `MatMulNBits` takes and that divides a row of `width`; 32, the last not full, if none."""
    return next((size for size in (256, 128, 64, 32, 16) if width % size == 0), 32)


def _each_block(values: Tensor, rows: int, blocks: int) -> Tensor:
    """float32 [rows, blocks] of one value a row, or one a block."""
    return values.float().reshape(rows, -1).expand(rows, blocks).contiguous()
