"""Int8 linears whose inputs have a range from before: each kernel against the definition, native ones bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_kernels import CHANNEL, W8A8, weights_of
from test_native import SHAPES, assert_same, each_path, example, needs_library
from torch import Tensor

from clipq.arithmetic.specs import QuantSpec
from clipq.errors import ClipqError
from clipq.kernels import KERNELS, LinearWeights, library, native, ops

RANGES = {
    "symmetric": (True, 0.03, 0),
    "asymmetric": (False, 0.03, -17),
    "one-sided": (False, 0.02, -128),
    "the other side": (False, 0.02, 127),
    "narrow": (False, 1e-6, 3),
    "narrowest": (False, 1e-45, 3),
    "wide": (False, 50.0, 100),
    "widest": (True, 3e38, 0),
}
each_range = pytest.mark.parametrize("range_", RANGES.values(), ids=RANGES)


def plainly(x: Tensor, symmetric: bool, scale: float, zero_point: int) -> tuple[Tensor, Tensor]:
    """int8 values as float64, and the scale of each row, NaN where it holds what is not finite: in numbers of float64
    that float32 would round to the same, as each is a quotient of two float32."""
    finite = x.isfinite().all(-1, keepdim=True)
    quotient = (x.double() / torch.tensor(scale).double()).float()  # correctly rounded twice: innocuous at 53 bits
    q = (quotient.double().round() + zero_point).clamp(-127 if symmetric else -128, 127)
    return torch.where(finite, q, 0), torch.where(finite, torch.tensor(scale), math.nan)


def linear_plainly(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, range_) -> Tensor:
    """Exact integer sums, then the scales and the bias as csrc/clipq.h orders them, in float32."""
    q, scale = plainly(x, *range_)
    sums = (q - torch.where(scale.isnan(), 0, range_[2])) @ weight.double().T
    y = sums.float() * weight_scale * scale
    return y if bias is None else y + bias


def rows(m: int, k: int, seed: int = 0) -> Tensor:
    """Rows far within a range and far outside of it, and values next to where rounding tips."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(m, k, generator=generator) * torch.logspace(-4, 4, m)[:, None]
    x[::3] = (torch.randint(-300, 300, x[::3].shape, generator=generator) + 0.5) * 0.03
    return x


@each_path
@each_range
def test_rows_are_quantized_as_defined(path, range_) -> None:
    x = rows(31, 77)
    x[3, 5], x[9, 76], x[20, 0] = math.nan, math.inf, -math.inf
    q, scale, zero_point = native.quantize_rows(x, range_[0], path, range_[1:])
    expected, scales = plainly(x, *range_)
    assert_same(scale, scales.float())
    assert_same(q.double(), expected)
    assert torch.equal(zero_point, torch.where(scales.isnan(), 0, range_[2]).int())


@each_path
@each_range
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_native_linear_equals_the_definition(path, range_, shape) -> None:
    m, n, k = shape
    _, weight, scale, bias = example(*shape)
    x = rows(m, k)
    for b in (bias, None):
        packed = native.PackedLinear(weight, scale, b, range_[0], path, range_[1:])
        assert_same(packed(x), linear_plainly(x, weight, scale, b, range_))


@each_path
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_value_poisons_its_row_and_no_other(path, bad) -> None:
    _, weight, scale, bias = example(9, 20, 37)
    x = rows(9, 37)
    for column in (0, 17, 36):
        x[column % 9, column] = bad
    y = native.PackedLinear(weight, scale, bias, False, path, (0.03, -17))(x)
    assert y.isnan().any(1).tolist() == y.isnan().all(1).tolist() == (~x.isfinite()).any(1).tolist()


@needs_library
@pytest.mark.parametrize("range_", [(-0.1, 0), (math.nan, 0), (math.inf, 0), (0.1, 128), (0.1, -129)], ids=str)
def test_a_range_that_is_none_is_refused(range_) -> None:
    _, weight, scale, bias = example(2, 4, 6)
    with pytest.raises(ClipqError, match="out of range"):
        native.PackedLinear(weight, scale, bias, False, None, range_)(torch.ones(2, 6))
    with pytest.raises(ClipqError, match="out of range"):
        native.quantize_rows(torch.ones(2, 6), False, None, range_)


# Every kernel, through what a layer packs.


def static_weights(out: int, inputs: int, range_, bias: bool = True) -> LinearWeights:
    spec = QuantSpec(range_[0], "tensor", dynamic=False)
    zero_point = None if range_[0] else torch.tensor([range_[2]], dtype=torch.int8)
    weights = weights_of(out, inputs, spec, bias, CHANNEL)
    return replace(weights, input_scale=torch.tensor([range_[1]]), input_zero_point=zero_point)


@pytest.mark.parametrize("name", W8A8)
@pytest.mark.parametrize("range_", [RANGES[key] for key in ("symmetric", "asymmetric", "one-sided", "wide")], ids=str)
def test_kernels_compute_the_definition(name: str, range_) -> None:
    weights = static_weights(24, 40, range_)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = rows(12, 40).to(dtype)
        q, scale = plainly(x.float(), *range_)
        expected = (q - range_[2]) * scale.double() @ (weights.qweight.double() * weights.scale.double()).T
        expected += weights.bias.double()
        y = KERNELS[name](weights)(x)
        assert y.dtype == dtype
        assert (y.double() - expected).abs().max() <= 8 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize("name", W8A8)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_rows_are_nan_and_alone_and_large_ones_saturate(name: str, bad: float) -> None:
    kernel = KERNELS[name](static_weights(8, 16, RANGES["asymmetric"]))
    x = torch.randn(5, 16)
    x[4] = 1e30
    clean = kernel(x)
    x[2, 3] = bad
    y = kernel(x)
    assert y[2].isnan().all() and clean.isfinite().all()
    torch.testing.assert_close(y[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])
    torch.testing.assert_close(clean[4], kernel(torch.full((1, 16), 4.5))[0])


@pytest.mark.parametrize("name", W8A8)
def test_a_row_does_not_depend_on_its_company(name: str) -> None:
    kernel = KERNELS[name](static_weights(8, 16, RANGES["asymmetric"]))
    x = rows(9, 16)
    torch.testing.assert_close(kernel(x), torch.cat([kernel(row[None]) for row in x]))


@needs_library
def test_a_compiled_linear_is_the_same() -> None:
    weights = static_weights(8, 16, RANGES["asymmetric"])
    packed = KERNELS["native"](weights)._packed
    x = rows(4, 16)
    parts = (packed.packed, packed.scale, packed.bias, packed.symmetric, packed.index, *packed.static)
    assert torch.equal(ops.linear(x, *parts), packed(x))
    torch.library.opcheck(torch.ops.clipq.linear.default, (x, *parts), test_utils=("test_schema", "test_faketensor"))
    assert library.best_path() == packed.path
