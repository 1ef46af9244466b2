"""fp8 (e4m3): its rounding against every number it has, in float64, and against torch's own cast."""

from __future__ import annotations

import math

import pytest
import torch

from clipq.arithmetic import functional
from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import QuantizationError, SchemeError, UnknownNameError

SPEC = QuantSpec(granularity="tensor", kind="float")
ONE, ZERO = torch.ones(1, 1), torch.zeros(1, 1)


def e4m3(code: int) -> float:
    """The number that a code stands for: a sign, 4 bits of exponent biased by 7, 3 bits of mantissa; no infinities."""
    sign, exponent, mantissa = -1.0 if code & 0x80 else 1.0, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


NUMBERS = torch.tensor([e4m3(code) for code in range(0x7F)], dtype=torch.float64)
"""All that are positive or zero, ascending: 0, 7 subnormal ones, and so on up to 448."""


def nearest(x: torch.Tensor) -> torch.Tensor:
    """Of float64 values: the nearest number, of two equally near the one with an even mantissa, at most 448."""
    distance = (x.abs().clamp(max=1e6)[..., None] - NUMBERS).abs()
    best = distance.min(dim=-1, keepdim=True).values
    even = torch.arange(len(NUMBERS)) % 2 == 0
    place = torch.where(distance == best, torch.where(even, 0, 1), 2).argmin(dim=-1)
    return NUMBERS[place] * torch.where(torch.signbit(x), -1.0, 1.0)


def interesting() -> torch.Tensor:
    """Every number, what lies halfway between neighbours, a little beside that, and far beyond the ends."""
    halfway = (NUMBERS[1:] + NUMBERS[:-1]) / 2
    beside = [halfway * (1 + 2.0**-20), halfway * (1 - 2.0**-20)]
    ends = torch.tensor([2.0**-10, 2.0**-11, 1e-12, 448.0, 449, 463.9, 464, 470, 480, 1e6, 3e38], dtype=torch.float64)
    positive = torch.cat([NUMBERS, halfway, *beside, ends]).float()
    return torch.cat([positive, -positive])


def test_every_code_is_what_its_bits_say():
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    assert torch.equal(codes.nan_to_num(999.0), torch.tensor([e4m3(c) for c in range(256)]).double().nan_to_num(999.0))


def test_rounding_is_to_nearest_ties_to_even_and_saturates():
    x = interesting()
    q = functional.quantize(x, ONE, ZERO, SPEC)
    assert q.dtype == torch.float8_e4m3fn and q.shape == x.shape
    assert torch.equal(q.double(), nearest(x.double()))
    assert q.double().abs().max() == 448


def test_rounding_is_torchs_cast_wherever_that_stays_finite():
    x = torch.cat([interesting(), torch.randn(20_000) * 50, torch.randn(20_000) * 0.01])
    x = x[x.abs() <= 448]
    assert torch.equal(
        functional.quantize(x, ONE, ZERO, SPEC).view(torch.uint8), x.to(torch.float8_e4m3fn).view(torch.uint8)
    )


@pytest.mark.parametrize("granularity", ["tensor", "channel", "token"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 33), (7, 16)])
def test_the_largest_of_a_group_becomes_448_and_errors_are_a_sixteenth_at_most(granularity, shape):
    x = torch.randn(shape)
    x[0, 0] = 300.0  # an outlier channel
    spec = QuantSpec(granularity=granularity, kind="float")
    scale, zero_point = functional.choose_qparams(x, spec)
    q = functional.quantize(x, scale, zero_point, spec)
    assert not zero_point.any()
    assert torch.equal(q.float().reshape(len(scale), -1).abs().amax(dim=1), torch.full((len(scale),), 448.0))
    exact = nearest(x.double() / scale.double().reshape(-1, 1)) * scale.double().reshape(-1, 1)
    found = functional.dequantize(q, scale, zero_point, spec).double()
    assert torch.allclose(
        found, exact, rtol=1e-6
    )  # the division by the scale is rounded, too: ties may fall either way
    error = (found - x.double()).abs()
    assert (error <= torch.maximum(x.double().abs() / 16, scale.double().reshape(-1, 1) * 2.0**-10) * 1.0001).all()


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45])
def test_constant_groups_are_exact_or_zero(value):
    x = torch.full((2, 4), value)
    assert torch.allclose(functional.fake_quantize(x, QuantSpec(kind="float")), x, atol=1e-37)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_visible(bad):
    x = torch.randn(3, 8)
    x[1, 2] = bad
    spec = QuantSpec(granularity="token", kind="float")
    scale, zero_point = functional.choose_qparams(x, spec)
    q = functional.quantize(x, scale, zero_point, spec)
    assert not q.float().isnan().any()
    found = functional.dequantize(q, scale, zero_point, spec)
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()
    with pytest.raises(QuantizationError, match="w holds 1 non-finite"):
        functional.quantize_weight(x, QuantSpec(kind="float"), "w")


@pytest.mark.parametrize("wrong", [{"symmetric": False}, {"bits": 7}])
def test_fp8_has_no_zero_point_and_eight_bits(wrong):
    with pytest.raises(SchemeError):
        QuantSpec(kind="float", **wrong)
    with pytest.raises(UnknownNameError, match="Did you mean 'float'"):
        QuantSpec(kind="floats")


def test_a_scheme_has_one_kind_of_numbers():
    with pytest.raises(SchemeError, match="both the same"):
        Scheme("x", weights=QuantSpec(kind="float"), activations=QuantSpec(granularity="token"))


def test_it_is_written_only_where_it_is_not_int():
    fp8, int8 = PRECISIONS["fp8"], PRECISIONS["int8"]
    assert fp8.to_dict()["weights"]["kind"] == fp8.to_dict()["activations"]["kind"] == "float"
    assert all("kind" not in int8.to_dict()[part] for part in ("weights", "activations", "embeddings"))
    assert [Scheme.from_dict(one.to_dict()) for one in (fp8, int8)] == [fp8, int8]
