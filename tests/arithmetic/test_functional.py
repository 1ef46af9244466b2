"""The definition of the numbers, against numbers worked out by hand, and its behaviour at every edge."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clipq.arithmetic.functional import choose_qparams, dequantize, fake_quantize, quantize, quantize_weight, sqnr
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import QuantizationError, SchemeError

SYMMETRIC = {
    "tensor": QuantSpec(granularity="tensor"),
    "channel": QuantSpec(granularity="channel"),
    "token": QuantSpec(granularity="token"),
    "group": QuantSpec(granularity="group", group_size=2),
}
ASYMMETRIC = {name: QuantSpec(False, spec.granularity, spec.group_size) for name, spec in SYMMETRIC.items()}
SPECS = [*SYMMETRIC.values(), *ASYMMETRIC.values()]
TOKEN, TOKEN_ASYMMETRIC = SYMMETRIC["token"], ASYMMETRIC["token"]

INF, NAN = float("inf"), float("nan")
MAX, TINY = torch.finfo(torch.float32).max, torch.finfo(torch.float32).tiny


def describe(spec: QuantSpec) -> str:
    return f"{'symmetric' if spec.symmetric else 'asymmetric'}-{spec.granularity}"


def parts(x: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor, Tensor]:
    scale, zero_point = choose_qparams(x, spec)
    return quantize(x, scale, zero_point, spec), scale, zero_point


# Symmetric: the largest magnitude of a group is 127 (or 254, 63.5, 31.75, ...) and the scale 1 (2, 1/2, 1/4).
# Asymmetric: a group from low to high, zero included, has high - low = 255 (or 51, ...) and the scale 1 (1/5).
BY_HAND = [
    ("tensor", True, [[254, -3, 2, 1]], [[127, -2, 1, 0]], [[2.0]], [[0]]),  # -1.5 and 0.5 go to the even neighbour
    ("tensor", True, [[1, -127], [64, 0]], [[1, -127], [64, 0]], [[1.0]], [[0]]),
    ("tensor", False, [[155, -100], [1, 0]], [[127, -128], [-27, -28]], [[1.0]], [[-28]]),
    ("channel", True, [[63.5, 1], [-254, 2]], [[127, 2], [-127, 1]], [[0.5], [2.0]], [[0], [0]]),
    ("channel", False, [[255, 5], [-255, -5]], [[127, -123], [-128, 122]], [[1.0], [1.0]], [[-128], [127]]),
    (
        "channel",
        True,
        [[[127, 1], [2, 3]], [[0, 0], [0, -254]]],
        [[[127, 1], [2, 3]], [[0, 0], [0, -127]]],
        [[1.0], [2.0]],
        [[0], [0]],
    ),
    ("token", True, [[[127, 1], [31.75, 1]]], [[[127, 1], [127, 4]]], [[[1.0], [0.25]]], [[[0], [0]]]),
    ("token", False, [[[200, -55], [51, 1]]], [[[127, -128], [127, -123]]], [[[1.0], [0.2]]], [[[-73], [-128]]]),
    ("group", True, [[127, 1, -254, 3]], [[127, 1, -127, 2]], [[[1.0], [2.0]]], [[[0], [0]]]),
    ("group", False, [[255, 1, -51, 0]], [[127, -127, -128, 127]], [[[1.0], [0.2]]], [[[-128], [127]]]),
]


@pytest.mark.parametrize(("granularity", "symmetric", "x", "q", "scale", "zero_point"), BY_HAND)
def test_numbers_worked_out_by_hand(granularity, symmetric, x, q, scale, zero_point) -> None:
    spec = (SYMMETRIC if symmetric else ASYMMETRIC)[granularity]
    got_q, got_scale, got_zero_point = parts(torch.tensor(x, dtype=torch.float32), spec)
    assert got_q.dtype == torch.int8 and got_q.tolist() == q
    assert torch.equal(got_scale, torch.tensor(scale, dtype=torch.float32))
    assert got_zero_point.tolist() == zero_point
    products = torch.tensor(scale) * (torch.tensor(q).reshape(*torch.tensor(scale).shape[:-1], -1) - got_zero_point)
    assert torch.equal(dequantize(got_q, got_scale, got_zero_point, spec).flatten(), products.flatten())


def test_halves_are_rounded_to_the_even_neighbour() -> None:
    x = torch.tensor([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5]])
    assert parts(x, TOKEN)[0].tolist() == [[127, 0, 2, 2, 0, -2, -2, 126]]


@pytest.mark.parametrize("spec", SPECS, ids=describe)
@pytest.mark.parametrize("seed", range(3))
def test_error_is_at_most_half_a_step(spec: QuantSpec, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 4, 8, generator=generator) * torch.logspace(-4, 4, 6)[:, None, None] + seed
    q, scale, zero_point = parts(x, spec)
    steps = (x - dequantize(q, scale, zero_point, spec)).reshape(*scale.shape[:-1], -1).abs() / scale
    assert steps.max() <= 0.5 + 1e-4  # at 255 steps float32 resolves a step to 255 * 2^-24
    assert spec.qmin <= q.min() and q.max() <= spec.qmax
    assert steps.max() > 0.25  # and it is no better than int8


@pytest.mark.parametrize("spec", SPECS, ids=describe)
def test_quantizing_twice_changes_nothing(spec: QuantSpec) -> None:
    x = torch.randn(4, 6)
    once = fake_quantize(x, spec)
    torch.testing.assert_close(fake_quantize(once, spec), once, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", ASYMMETRIC.values(), ids=describe)
@pytest.mark.parametrize("shift", [-300.0, -1.0, 0.0, 1.0, 300.0])
def test_zero_is_exact_whatever_the_range(spec: QuantSpec, shift: float) -> None:
    x = torch.randn(4, 6) + shift
    x[:, ::2] = 0.0
    assert torch.equal(fake_quantize(x, spec)[:, ::2], torch.zeros(4, 3))


@pytest.mark.parametrize("spec", SPECS, ids=describe)
def test_all_zero_groups_have_scale_one_and_stay_zero(spec: QuantSpec) -> None:
    _, scale, _ = parts(torch.zeros(3, 4), spec)
    assert torch.equal(scale, torch.ones_like(scale))
    assert torch.equal(fake_quantize(torch.zeros(3, 4), spec), torch.zeros(3, 4))


@pytest.mark.parametrize("spec", SPECS, ids=describe)
@pytest.mark.parametrize("value", [3.7, -3.7, 1e-30, -1e30, 2 * TINY * 255])
def test_constants_and_single_elements_come_back(spec: QuantSpec, value: float) -> None:
    for shape in ((2, 4), (1, 2)):
        x = torch.full(shape, value)
        torch.testing.assert_close(fake_quantize(x, spec), x, rtol=1e-6, atol=0)
    if spec.granularity != "group":
        for shape in ((1,), (1, 1)):
            torch.testing.assert_close(fake_quantize(torch.full(shape, value), spec), torch.full(shape, value))


@pytest.mark.parametrize("spec", SPECS, ids=describe)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0), (0,), (2, 0, 4)])
def test_empty_tensors_stay_empty(spec: QuantSpec, shape: tuple[int, ...]) -> None:
    q, scale, zero_point = parts(torch.empty(shape), spec)
    assert q.shape == shape and q.dtype == torch.int8
    assert scale.shape == zero_point.shape
    assert torch.isfinite(scale).all()
    assert fake_quantize(torch.empty(shape), spec).shape == shape


@pytest.mark.parametrize("spec", [TOKEN, TOKEN_ASYMMETRIC], ids=describe)
def test_denormals_are_finite_and_no_further_off_than_half_of_the_smallest_step(spec: QuantSpec) -> None:
    x = torch.tensor([[1e-45, 0, 0], [1e-40, -1e-39, 3e-39], [1.2e-38, 0, -1e-44], [3e-38, 1e-38, 0]])
    _, scale, _ = parts(x, spec)
    assert scale.min() >= TINY  # a denormal scale would lose bits, or all of its value where denormals are flushed
    assert (fake_quantize(x, spec) - x).abs().max() <= TINY / 2
    assert torch.equal(fake_quantize(torch.full((1, 2), 1e-45), spec), torch.zeros(1, 2))


@pytest.mark.parametrize("spec", [TOKEN, TOKEN_ASYMMETRIC], ids=describe)
def test_huge_values_come_back(spec: QuantSpec) -> None:
    x = torch.tensor([[MAX / 4, -MAX / 4, 0.0], [1e38, 1.0, 0.0]])
    back = fake_quantize(x, spec)
    assert torch.isfinite(back).all()
    assert torch.all((back - x).abs() <= 0.51 * choose_qparams(x, spec)[0])


def test_a_range_beyond_float32_is_not_a_number_rather_than_wrong() -> None:
    assert fake_quantize(torch.tensor([[MAX, -MAX]]), TOKEN_ASYMMETRIC).isnan().all()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("spec", [*list(SYMMETRIC.values())[1:], *list(ASYMMETRIC.values())[1:]], ids=describe)
def test_a_non_finite_value_spoils_its_own_group_only(spec: QuantSpec, bad: float) -> None:
    x = torch.randn(3, 4)
    spoilt = x.clone()
    spoilt[1, 2] = bad
    hit = torch.zeros(3, 4, dtype=torch.bool)
    hit[1, 2 if spec.granularity == "group" else 0 :] = True
    q, scale, _ = parts(spoilt, spec)
    assert torch.equal(fake_quantize(spoilt, spec).isnan(), hit)
    assert int(scale.isnan().sum()) == 1
    assert torch.equal(q[hit], torch.zeros(int(hit.sum()), dtype=torch.int8))
    assert torch.equal(q[~hit], parts(x, spec)[0][~hit])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_non_finite_value_spoils_the_whole_tensor_where_that_shares_the_scale(bad: float, symmetric: bool) -> None:
    x = torch.tensor([[1.0, bad], [2.0, 3.0]])
    assert fake_quantize(x, QuantSpec(symmetric, "tensor")).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("spec", SPECS, ids=describe)
def test_every_float_type_gives_the_numbers_of_its_float32_values(spec: QuantSpec, dtype: torch.dtype) -> None:
    x = (torch.randn(4, 6) * 100).to(dtype)
    for got, expected in zip(parts(x, spec), parts(x.float(), spec), strict=True):
        assert torch.equal(got, expected) and got.dtype == expected.dtype


@pytest.mark.parametrize("spec", SPECS, ids=describe)
def test_strides_do_not_matter(spec: QuantSpec) -> None:
    x = torch.randn(6, 4)
    for view in (x.t(), x[::2], x[:, 1:3], x[:1].expand(3, 4)):
        assert torch.equal(fake_quantize(view, spec), fake_quantize(view.clone(), spec))


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_granularities_agree_where_they_mean_the_same(symmetric: bool) -> None:
    x = torch.randn(5, 8)
    token = fake_quantize(x, QuantSpec(symmetric, "token"))
    assert torch.equal(fake_quantize(x, QuantSpec(symmetric, "channel")), token)
    assert torch.equal(fake_quantize(x, QuantSpec(symmetric, "group", 8)), token)
    assert torch.equal(fake_quantize(x[:1], QuantSpec(symmetric, "tensor")), token[:1])
    pairs = fake_quantize(x.reshape(5, 4, 2), QuantSpec(symmetric, "token")).reshape(5, 8)
    assert torch.equal(fake_quantize(x, QuantSpec(symmetric, "group", 2)), pairs)


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SchemeError, match="10 inputs do not divide into groups of 4; choose a divisor"):
        choose_qparams(torch.randn(2, 10), QuantSpec(granularity="group", group_size=4))


def test_a_weight_of_integers_is_refused_by_name() -> None:
    """As other libraries leave them in an `nn.Linear`, with a scale beside it that clipq knows nothing of."""
    with pytest.raises(QuantizationError, match=r"fc1\.weight is torch\.int8, so quantized already"):
        quantize_weight(torch.ones(4, 6, dtype=torch.int8), QuantSpec(), "fc1.weight")


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_non_finite_weight_is_refused_by_name(bad: float) -> None:
    weight = torch.randn(4, 6)
    weight[0, 1] = weight[3, 5] = bad
    with pytest.raises(QuantizationError, match=r"visual\.fc1\.weight holds 2 non-finite values of 24; mend"):
        quantize_weight(weight, QuantSpec(), "visual.fc1.weight")


def test_a_weight_that_only_float64_can_hold_is_refused_by_name() -> None:
    with pytest.raises(QuantizationError, match=r"fc1\.weight holds 4 non-finite"):
        quantize_weight(torch.full((2, 2), 1e300, dtype=torch.float64), QuantSpec(), "fc1.weight")
    with pytest.raises(QuantizationError, match=r"fc1\.weight spans more than float32"):
        quantize_weight(torch.tensor([[MAX, -MAX]]), QuantSpec(symmetric=False), "fc1.weight")


@pytest.mark.parametrize("spec", SPECS, ids=describe)
def test_quantize_weight_is_the_same_quantization_with_int8_zero_points(spec: QuantSpec) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 6))
    q, scale, zero_point = quantize_weight(weight, spec, "w")
    expected = parts(weight, spec)
    assert torch.equal(q, expected[0]) and torch.equal(scale, expected[1])
    assert not any(t.requires_grad for t in (q, scale))
    if spec.symmetric:
        assert zero_point is None
    else:
        assert zero_point.dtype == torch.int8 and torch.equal(zero_point.float(), expected[2])


def test_sqnr_of_known_pairs() -> None:
    assert sqnr(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])) == pytest.approx(20.0)  # |x| = 5, error 1/2
    assert sqnr(torch.ones(10), torch.zeros(10)) == pytest.approx(0.0)
    assert sqnr(torch.ones(2), torch.ones(2)) == math.inf
    x = torch.rand(200, 500) * 2 - 1  # a uniform signal fills 254 steps: 20 log10(254) = 48.1 dB
    assert sqnr(x, fake_quantize(x, SYMMETRIC["tensor"])) == pytest.approx(48.1, abs=0.1)
