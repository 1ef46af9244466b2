"""Every int8 kernel that can run here, against the definition in float64; which one is chosen, and what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from clipq import kernels
from clipq.arithmetic import functional
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import SchemeError, UnknownNameError
from clipq.kernels import KERNELS, LinearWeights, chosen, pack, why
from clipq.methods.finishing import use_kernel
from clipq.modules.layers import QLinear

CPU = torch.device("cpu")
TOKEN, TOKEN_ASYMMETRIC = QuantSpec(granularity="token"), QuantSpec(False, "token")
PER_TENSOR, PER_TENSOR_ASYMMETRIC = QuantSpec(granularity="tensor"), QuantSpec(False, "tensor")
CHANNEL, GROUP = QuantSpec(), QuantSpec(granularity="group", group_size=4)
FLOATS = (torch.float32, torch.float16, torch.bfloat16)

# torch._int_mm computes anywhere, slowly; `obstacle` only keeps it from being chosen where it is slow.
RUNNABLE = [name for name, kernel in KERNELS.items() if name == "int_mm" or kernel.obstacle(CPU) is None]
W8A8 = [name for name in RUNNABLE if name != "dequantize"]


def weights_of(
    out: int, inputs: int, activations: QuantSpec | None, bias: bool = True, spec: QuantSpec = CHANNEL
) -> LinearWeights:
    q, scale, zero_point = functional.quantize_weight(torch.randn(out, inputs) / inputs**0.5, spec, "w")
    return LinearWeights(q, scale, zero_point, torch.randn(out) if bias else None, spec, activations)


def affine(q: Tensor, scale: Tensor, zero_point: Tensor | None, spec: QuantSpec) -> Tensor:
    """scale * (q - zero_point) in float64."""
    grouped = q.double().reshape(*q.shape[:-1], -1, spec.group_size) if spec.group_size else q.double()
    return (scale.double() * (grouped - (0 if zero_point is None else zero_point.double()))).reshape(q.shape)


def exact(x: Tensor, weights: LinearWeights) -> Tensor:
    """The definition of the quantized linear, in float64 from the same int8 values."""
    rows = x.double()
    if weights.activations is not None:
        scale, zero_point = functional.choose_qparams(x, weights.activations)
        q = functional.quantize(x, scale, zero_point, weights.activations)
        rows = affine(q, scale, zero_point, weights.activations)
    y = rows @ affine(weights.qweight, weights.scale, weights.zero_point, weights.spec).t()
    return y if weights.bias is None else y + weights.bias.double()


def error_of(name: str, x: Tensor, weights: LinearWeights) -> float:
    y = KERNELS[name](weights)(x)
    assert y.dtype == x.dtype and y.shape == (*x.shape[:-1], weights.qweight.shape[0])
    return float((y.double() - exact(x, weights)).abs().max())


def assert_as_good_as_the_reference(name: str, x: Tensor, weights: LinearWeights) -> None:
    # What both are granted besides: one unit in the last place of the largest result (float32's own resolution).
    resolution = torch.finfo(torch.float32).eps * float(exact(x, weights).abs().max())
    assert error_of(name, x, weights) <= 2 * error_of("reference", x, weights) + resolution


ACTIVATIONS = {
    "token": TOKEN, "token-asymmetric": TOKEN_ASYMMETRIC,
    "tensor": PER_TENSOR, "tensor-asymmetric": PER_TENSOR_ASYMMETRIC,
}  # fmt: skip
COMPUTES = [(n, a) for n in W8A8 for a, spec in ACTIVATIONS.items() if KERNELS[n].fits(weights_of(8, 8, spec))]


@pytest.mark.parametrize(("name", "activations"), COMPUTES)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_kernels_compute_the_definition(name: str, activations: str, bias: bool) -> None:
    weights = weights_of(24, 40, ACTIVATIONS[activations], bias)
    for dtype, shift in itertools.product(FLOATS, (0.0, 3.0, -3.0)):
        assert_as_good_as_the_reference(name, (torch.randn(9, 40) + shift).to(dtype), weights)


SHAPES = [(1, 1), (1, 7), (3, 1), (5, 3), (8, 16), (17, 33), (65, 64), (70, 130)]


@pytest.mark.parametrize("name", W8A8)
@pytest.mark.parametrize(("out", "inputs"), SHAPES)
def test_every_size_of_weight(name: str, out: int, inputs: int) -> None:
    weights = weights_of(out, inputs, TOKEN_ASYMMETRIC)
    for rows in (1, 2, 6, 7, 19):
        assert_as_good_as_the_reference(name, torch.randn(rows, inputs), weights)


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (2, 0), (2, 1, 3)])
def test_any_leading_dimensions(name: str, leading: tuple[int, ...]) -> None:
    kernel = KERNELS[name](weights_of(8, 16, None if name == "dequantize" else TOKEN_ASYMMETRIC))
    x = torch.randn(*leading, 16)
    y = kernel(x)
    assert y.shape == (*leading, 8)
    torch.testing.assert_close(y.reshape(-1, 8), kernel(x.reshape(-1, 16)))


@pytest.mark.parametrize("name", RUNNABLE)
def test_any_strides(name: str) -> None:
    kernel = KERNELS[name](weights_of(8, 16, None if name == "dequantize" else TOKEN_ASYMMETRIC))
    x = torch.randn(16, 32)
    for view in (x.t(), x[:, :16], x[:, 1:17], x[:, ::2], x[::3, 16:], x[:1, :16].expand(4, 16), x[0, 3:19]):
        torch.testing.assert_close(kernel(view), kernel(view.clone(memory_format=torch.contiguous_format)))


@pytest.mark.parametrize("name", W8A8)
@pytest.mark.parametrize("activations", [TOKEN, TOKEN_ASYMMETRIC], ids=["symmetric", "asymmetric"])
def test_rows_are_independent_and_a_bad_row_is_nan_and_alone(name: str, activations: QuantSpec) -> None:
    kernel = KERNELS[name](weights_of(8, 16, activations))
    x = torch.randn(6, 16)
    clean = kernel(x)
    for row, bad in enumerate((float("nan"), float("inf"), -float("inf"))):
        x[row, row + 3] = bad
    y = kernel(x)
    assert y[:3].isnan().all()
    torch.testing.assert_close(y[3:], clean[3:])


@pytest.mark.parametrize("name", RUNNABLE)
def test_zero_rows_give_the_bias(name: str) -> None:
    weights = weights_of(8, 16, None if name == "dequantize" else TOKEN_ASYMMETRIC)
    assert torch.equal(KERNELS[name](weights)(torch.zeros(3, 16)), weights.bias.expand(3, 8))


@pytest.mark.parametrize("name", W8A8)
@pytest.mark.parametrize("activations", [TOKEN, TOKEN_ASYMMETRIC], ids=["symmetric", "asymmetric"])
def test_sums_do_not_saturate(name: str, activations: QuantSpec) -> None:
    """The largest products everywhere: 16-bit saturation (as of AVX2's vpmaddubsw) would show."""
    ends = torch.tensor([-127, 127], dtype=torch.int8)
    for signs in (ends[[0, 1]], ends[[1, 1]], ends[[0, 0]]):
        q = signs.repeat(4, 512)
        weights = LinearWeights(q, torch.full((4, 1), 0.01), None, None, CHANNEL, activations)
        x = torch.stack([torch.ones(1024), -torch.ones(1024), q[0].float().sign(), -q[0].float().sign()])
        torch.testing.assert_close(KERNELS[name](weights)(x).double(), exact(x, weights), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("spec", [CHANNEL, PER_TENSOR, GROUP, QuantSpec(False), QuantSpec(False, "group", 8)],
                         ids=["channel", "tensor", "group", "asymmetric", "asymmetric-group"])  # fmt: skip
def test_every_weight_scheme_computes_its_definition(spec: QuantSpec, dtype: torch.dtype) -> None:
    for activations in (None, TOKEN, TOKEN_ASYMMETRIC, PER_TENSOR):
        weights = weights_of(12, 16, activations, spec=spec)
        x = torch.randn(5, 16).to(dtype)
        y, expected = pack(weights)(x), exact(x, weights)
        tolerance = 8 * torch.finfo(dtype).eps * float(expected.abs().max())
        assert y.dtype == dtype
        assert (y.double() - expected).abs().max() <= tolerance


def test_a_scheme_that_no_fast_kernel_fits_falls_to_the_reference() -> None:
    assert chosen(CPU, weights_of(8, 16, TOKEN, spec=GROUP)) == "reference"
    assert chosen(CPU, weights_of(8, 16, TOKEN_ASYMMETRIC, spec=QuantSpec(False))) == "reference"
    assert chosen(CPU, weights_of(8, 16, None, spec=GROUP)) == "dequantize"
    assert chosen(CPU, weights_of(8, 16, TOKEN_ASYMMETRIC)) == chosen(CPU)
    assert isinstance(pack(weights_of(8, 16, TOKEN, spec=GROUP)), KERNELS["reference"])


@pytest.mark.parametrize("device", ["cpu", "meta", "cuda"])
def test_chosen_and_why_tell_the_same_story(device: str) -> None:
    reasons, best = why(torch.device(device)), chosen(torch.device(device))
    assert set(reasons) == set(KERNELS) - {"dequantize", "scaled_mm"}
    assert [name for name, reason in reasons.items() if reason == "chosen"] == [best]
    for name, reason in reasons.items():
        usable = KERNELS[name].obstacle(torch.device(device)) is None
        assert usable == (reason in ("chosen", "available"))
        assert usable or len(reason) > 10  # a sentence
    order = [name for name in KERNELS if name != "scaled_mm"]
    assert all(reasons[name] not in ("chosen", "available") for name in order[1 : order.index(best)])


def test_int_mm_is_offered_only_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    int_mm = KERNELS["int_mm"]
    monkeypatch.setitem(int_mm.obstacle.__globals__, "cpu_flags", lambda: frozenset({"avx2"}))
    assert "avx512_vnni" in int_mm.obstacle(CPU)
    monkeypatch.setitem(int_mm.obstacle.__globals__, "cpu_flags", lambda: frozenset({"avx2", "avx512_vnni"}))
    assert int_mm.obstacle(CPU) is None
    assert int_mm.obstacle(torch.device("cuda")) is None
    assert int_mm.obstacle(torch.device("mps")) is not None


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_kernel_can_be_forced(name: str) -> None:
    weights = weights_of(8, 16, None if name == "dequantize" else TOKEN)
    assert isinstance(pack(weights, name), KERNELS[name])


@pytest.mark.parametrize("name", ["int-mm", "refrence", "int_mm/avx2"])
def test_an_unknown_kernel_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown kernel '{name}'.*Did you mean.*dequantize, int_mm, native"):
        pack(weights_of(8, 16, TOKEN), name)


UNFIT = [("int_mm", TOKEN, GROUP), ("int_mm", TOKEN, QuantSpec(False)), ("native", PER_TENSOR, CHANNEL),
         ("reference", None, CHANNEL), ("int_mm", None, CHANNEL), ("dequantize", TOKEN, CHANNEL)]  # fmt: skip


@pytest.mark.parametrize(("name", "activations", "spec"), UNFIT)
def test_forcing_a_kernel_on_a_scheme_it_does_not_compute_is_refused(name, activations, spec) -> None:
    weights = weights_of(8, 16, activations, spec=spec)
    instead = chosen(CPU, weights)
    with pytest.raises(SchemeError, match=f"kernel '{name}' does not compute .*force '{instead}', or none"):
        pack(weights, name)


def test_use_kernel_reaches_every_linear_and_can_be_undone() -> None:
    scheme = Scheme("s", activations=TOKEN)
    model = torch.nn.Sequential(QLinear(torch.randn(8, 8), None, scheme), QLinear(torch.randn(4, 8), None, scheme))
    x = torch.randn(3, 8)
    automatic = model(x)
    use_kernel(model, "reference")
    torch.testing.assert_close(model(x), automatic)
    assert all(isinstance(part.kernel, KERNELS["reference"]) for part in model)
    use_kernel(model, None)
    assert all(isinstance(part.kernel, KERNELS[chosen(CPU)]) for part in model)
    assert kernels.label("reference") == "reference"


@pytest.mark.parametrize("name", W8A8)
@pytest.mark.parametrize("activations", [TOKEN, TOKEN_ASYMMETRIC], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("size", [1e36, 1e30, 1e-30, 1e-36])
def test_sums_do_not_leave_float32_on_the_way(name: str, activations: QuantSpec, size: float) -> None:
    weights = weights_of(16, 64, activations, bias=False)
    x = torch.randn(5, 64) * size
    y, expected = KERNELS[name](weights)(x), exact(x, weights)
    assert y.isfinite().all() and expected.abs().max() < torch.finfo(torch.float32).max
    assert (y.double() - expected).norm() < 1e-3 * expected.norm()
