"""fp8 linears: emulated and through torch's product, against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipq.arithmetic import functional
from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import QuantizationError, SchemeError
from clipq.kernels import LinearWeights, chosen, pack, why
from clipq.kernels.reference import ReferenceLinear
from clipq.kernels.scaled_mm import ScaledMMLinear

CPU = torch.device("cpu")
FP8, TOKEN = QuantSpec(kind="float"), QuantSpec(granularity="token", kind="float")
DEVICES = [CPU, *([torch.device("cuda", 0)] if torch.cuda.is_available() else [])]


def weights_of(out: int, inner: int, spec=FP8, activations=TOKEN, bias: bool = True) -> LinearWeights:
    w = torch.randn(out, inner) * torch.logspace(-3, 1, out)[:, None]
    q, scale, zero_point = functional.quantize_weight(w, spec, "w")
    return LinearWeights(q, scale, zero_point, torch.randn(out) if bias else None, spec, activations)


def exact(weights: LinearWeights, x: torch.Tensor) -> torch.Tensor:
    """In float64, from the same fp8 numbers."""
    rows = functional.fake_quantize(x, weights.activations).double()
    bias = None if weights.bias is None else weights.bias.double()
    return F.linear(rows, weights.dequantized().double(), bias)


@pytest.mark.parametrize("kernel", [ReferenceLinear, ScaledMMLinear])
@pytest.mark.parametrize("shape", [(1, 16), (5, 3, 32), (0, 16), (40, 64)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_both_are_the_product_of_the_fp8_numbers(kernel, shape, bias, dtype):
    weights = weights_of(48, shape[-1], bias=bias)
    x = (torch.randn(shape) * 3).to(dtype)
    y = kernel(weights)(x)
    assert y.shape == (*shape[:-1], 48) and y.dtype == dtype
    expected = exact(weights, x)
    largest = expected.abs() + (functional.fake_quantize(x, TOKEN).abs() @ weights.dequantized().abs().T).double()
    rounding = max(2.0**-8 if kernel is ScaledMMLinear else 2.0**-20, torch.finfo(dtype).eps)
    assert ((y.double() - expected).abs() <= rounding * largest + 1e-6).all()


def test_a_row_that_is_not_finite_leaves_the_others_as_they_are():
    for kernel in (ReferenceLinear, ScaledMMLinear):
        of, x = kernel(weights_of(16, 32)), torch.randn(3, 32)
        expected = of(x)
        x[1, 4] = torch.inf
        found = of(x)
        assert found[1].isnan().all() and torch.equal(found[[0, 2]], expected[[0, 2]])


def test_what_it_multiplies():
    assert ScaledMMLinear.fits(weights_of(16, 32))
    assert not ScaledMMLinear.fits(weights_of(24, 32)) and not ScaledMMLinear.fits(weights_of(32, 24))
    assert not ScaledMMLinear.fits(weights_of(16, 32, activations=None))
    assert not ScaledMMLinear.fits(weights_of(16, 32, QuantSpec(), QuantSpec(granularity="token")))
    assert not ScaledMMLinear.fits(weights_of(16, 32, QuantSpec(granularity="group", group_size=16, kind="float")))


def test_who_runs_where():
    assert chosen(CPU, weights_of(16, 32)) == "reference"
    assert chosen(CPU, weights_of(16, 32, activations=None)) == "dequantize"
    assert "scaled_mm" not in why(CPU)  # which is about int8
    assert ScaledMMLinear.obstacle(CPU)
    for wrong in ("int_mm", "native"):
        with pytest.raises(SchemeError, match="force 'reference'"):
            pack(weights_of(16, 32), wrong)
    with pytest.raises(QuantizationError, match="no gradient"):
        ScaledMMLinear(weights_of(16, 32))(torch.randn(2, 32, requires_grad=True))


@pytest.mark.skipif(len(DEVICES) == 1, reason="needs a GPU")
def test_on_a_gpu_torchs_product_runs():
    device = DEVICES[1]
    why_not = ScaledMMLinear.obstacle(device)
    if why_not:
        pytest.skip(why_not)
    weights = weights_of(64, 128)
    moved = LinearWeights(
        *(t if t is None else t.to(device) for t in (weights.qweight, weights.scale, None, weights.bias)), FP8, TOKEN
    )
    assert chosen(device, moved) == "scaled_mm"
    x = torch.randn(40, 128)
    assert torch.allclose(pack(moved)(x.to(device)).cpu(), pack(weights)(x), rtol=2e-2, atol=2e-2)


def test_the_precision_is_this():
    assert PRECISIONS["fp8"].weights == FP8 and PRECISIONS["fp8"].activations == TOKEN
