"""The kinds of vectors: error bounds, saturation, the order of inner products, and codes that no batch changes."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import Tensor

from clipq.errors import ClipqWarning, DataError, ResultError, SchemeError, UnknownNameError
from clipq.vectors import DTYPES, Ranges, dequantize, quantize, queries, ranges_of

RANGED = ("int8", "int8-per-dimension", "ubinary")
ABOUT = {"fingerprint": "f", "tower": "image", "normalized": True}


def rows(count: int = 300, width: int = 37, seed: int = 0) -> Tensor:
    """Unit rows of a common direction, with one dimension far wider than the others and one that never moves."""
    made = torch.Generator().manual_seed(seed)
    found = torch.randn(count, width, generator=made) * torch.linspace(0.2, 1, width) + 0.5
    found[:, 3] *= 8
    found[:, 5] = 0.25
    found /= found.norm(dim=1, keepdim=True)
    found[:, 5] = 0.01
    return found


@pytest.fixture
def ranges() -> Ranges:
    return ranges_of(rows(seed=1), ABOUT, "a test")


def steps(dtype: str, ranges: Ranges) -> Tensor:
    """The largest difference of neighbouring codes, from the documented definition."""
    one = ranges.limit.double() / 127
    return one.expand(ranges.width) if dtype == "int8" else 7 * ranges.std.double() / 127


@pytest.mark.parametrize("dtype", ["int8", "int8-per-dimension"])
def test_a_round_trip_is_within_half_a_step_and_what_saturates_is_counted(dtype, ranges):
    matrix = rows()
    matrix[7] *= 40  # far outside
    codes, saturated = quantize(matrix, dtype, ranges)
    assert codes.dtype == torch.int8 and codes.min() >= -127
    step, middle = steps(dtype, ranges), 0.0 if dtype == "int8" else ranges.mean.double()
    wanted = ((matrix.double() - middle) / step).numpy()
    outside = numpy.abs(wanted) > 127.5
    assert saturated == outside.sum() > 0
    assert numpy.abs(codes.numpy()[outside]).min() == 127
    error = (dequantize(codes, dtype, ranges).double() - matrix).abs() / step
    assert error[~torch.from_numpy(outside)].max() <= 0.5 + 1e-3


def test_half_precision_and_float32(ranges):
    matrix = rows()
    matrix[0, 0] = -1e6
    codes, saturated = quantize(matrix, "float16")
    assert saturated == 1 and codes[0, 0] == -65504
    assert numpy.array_equal(codes.numpy()[1:], matrix.numpy()[1:].astype(numpy.float16))
    for dtype in ("float16", "float32"):
        assert quantize(matrix, dtype, ranges)[0].equal(quantize(matrix, dtype)[0])  # ranges say nothing about it
        assert dequantize(quantize(matrix, dtype)[0], dtype)[1:].equal(queries(matrix, dtype).float()[1:])


@pytest.mark.parametrize("width", [37, 64, 8, 1])
def test_bits_are_those_of_packbits(width):
    matrix = rows(width=64)[:, :width]
    ranges = ranges_of(matrix, ABOUT, "a test")
    codes, saturated = quantize(matrix, "ubinary", ranges)
    assert saturated == 0 and codes.dtype == torch.uint8 and codes.shape == (300, -(-width // 8))
    assert numpy.array_equal(codes.numpy(), numpy.packbits(matrix.numpy() > ranges.mean.numpy(), axis=1))
    back = dequantize(codes, "ubinary", ranges)
    assert back.shape == matrix.shape and (back > ranges.mean).equal(matrix > ranges.mean)


@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_depend_on_the_row_and_the_ranges_alone(dtype, ranges):
    matrix = rows()
    whole, _ = quantize(matrix, dtype, ranges)
    order = torch.randperm(len(matrix))[:50]
    assert quantize(matrix[order], dtype, ranges)[0].equal(whole[order])
    again = ranges_of(rows(seed=1), ABOUT, "a test")
    assert quantize(matrix[:1], dtype, again)[0].equal(whole[:1])
    assert again.described() == ranges.described() != ranges_of(rows(seed=2), ABOUT, "a test").described()


def test_long_matrices_are_converted_in_parts(ranges, monkeypatch):
    whole = [quantize(rows(), dtype, ranges)[0] for dtype in DTYPES]
    monkeypatch.setattr("clipq.vectors.codes._ROWS", 7)
    assert all(quantize(rows(), dtype, ranges)[0].equal(one) for dtype, one in zip(DTYPES, whole, strict=True))


def recall(scores: Tensor, exact: Tensor) -> float:
    wanted, found = exact.topk(10).indices, scores.double().topk(10).indices
    return (wanted[:, :, None] == found[:, None, :]).any(-1).double().mean().item()


def test_queries_make_inner_products_of_codes_rank_as_float_ones_do():
    """Also where dimensions differ a hundredfold and share a mean, and for queries of another tower."""
    matrix, ranges = rows(2000, 96), ranges_of(rows(2000, 96, seed=1), ABOUT, "a test")
    asked = rows(200, 96, seed=3).flip(1) - 0.1
    exact = asked.double() @ matrix.double().T
    products = {
        dtype: queries(asked, dtype, ranges).double() @ quantize(matrix, dtype, ranges)[0].double().T
        for dtype in ("int8", "int8-per-dimension")
    }
    assert recall(products["int8-per-dimension"], exact) > 0.95
    plain = [quantize(some, "int8-per-dimension", ranges)[0].double() for some in (asked, matrix)]
    assert recall(plain[0] @ plain[1].T, exact) < 0.7, "why queries() exists"
    assert recall(products["int8"], exact) > 0.5
    codes = queries(asked, "int8")
    assert codes.abs().amax(dim=1).unique().tolist() == [127]
    assert torch.equal(codes, queries(asked * 3, "int8"))  # of a direction only


def test_a_query_of_nothing_is_nothing():
    assert queries(torch.zeros(2, 8), "int8").equal(torch.zeros(2, 8, dtype=torch.int8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(dtype, bad, ranges):
    matrix = rows()
    matrix[11, 2] = bad
    for convert in (quantize, queries):
        with pytest.raises(ResultError, match=r"row 11 is not finite \(1 such\)"):
            convert(matrix, dtype, ranges)
    with pytest.raises(DataError, match="not finite"):
        ranges_of(matrix, ABOUT, "a test")


@pytest.mark.parametrize("dtype", RANGED)
def test_ranges_are_never_of_the_batch(dtype):
    with pytest.raises(SchemeError, match="the same for every batch"):
        quantize(rows(), dtype)


def test_what_does_not_fit_is_a_typed_error(ranges):
    with pytest.raises(UnknownNameError, match="'int9'.*Did you mean 'int8'"):
        quantize(rows(), "int9", ranges)
    with pytest.raises(DataError, match="width 37.*width 36"):
        quantize(rows(width=36), "int8", ranges)
    with pytest.raises(DataError, match="float rows"):
        quantize(rows().to(torch.int8), "int8", ranges)
    for codes in (torch.zeros(2, 37), torch.zeros(2, 36, dtype=torch.int8), torch.zeros(37, dtype=torch.int8)):
        with pytest.raises(DataError, match="int8 codes of width 37"):
            dequantize(codes, "int8", ranges)


def test_ranges_are_what_they_say():
    matrix = rows(20_000, 16)
    found = ranges_of(matrix[:5000], ABOUT, "here")
    exact = matrix[:5000].double()
    torch.testing.assert_close(found.mean.double(), exact.mean(0), atol=1e-7, rtol=0)
    assert (exact.abs() <= found.limit + 1e-7).double().mean() == pytest.approx(0.9999, abs=2e-5)
    assert found.about == {**ABOUT, "origin": "here", "rows": 5000}
    moving = [i for i in range(16) if i != 5]
    torch.testing.assert_close(found.std.double()[moving], exact.std(0)[moving], atol=1e-7, rtol=1e-5)
    assert found.std[5] > 0  # it never moved, and still has a step
    assert found.unevenness > 1
    torch.testing.assert_close(ranges_of(matrix, ABOUT, "").limit, found.limit, atol=0.02, rtol=0)


def test_ranges_of_too_little():
    with pytest.warns(ClipqWarning, match="from 99 rows"):
        ranges_of(rows(99), ABOUT, "a few")
    for matrix in (rows(1), torch.zeros(0, 4), torch.zeros(300), torch.zeros(300, 4)):
        with pytest.raises(DataError):
            ranges_of(matrix, ABOUT, "nothing")


def test_forged_ranges_are_refused(ranges):
    good = {"mean": ranges.mean, "std": ranges.std, "limit": ranges.limit}
    for name, bad in (
        ("std", ranges.std * 0),
        ("std", ranges.std[:-1]),
        ("limit", -ranges.limit),
        ("limit", ranges.limit[None]),
        ("mean", ranges.mean * float("nan")),
        ("mean", ranges.mean.double()),
    ):
        with pytest.raises(DataError, match="no ranges"):
            Ranges(**{**good, name: bad})


@pytest.mark.parametrize("key", ["fingerprint", "tower", "normalized"])
def test_ranges_of_another_model_or_tower_are_refused(ranges, key):
    ranges.check_for(ABOUT)
    with pytest.raises(DataError, match=f"with {key} .*earlier file of the same model"):
        ranges.check_for({**ABOUT, key: "other"})
