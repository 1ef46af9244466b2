"""The native int8 linear, on every path this processor has, against `clipq.arithmetic.functional`: equal bits."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from clipq.arithmetic import functional
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import QuantizationError, UnknownNameError
from clipq.kernels import native
from clipq.native import library

ROOT = Path(__file__).resolve().parents[2]
COMPILER = next((name for name in ("g++", "clang++", "c++") if shutil.which(name)), None)
SHAPES = [
    (1, 1, 1),
    (2, 16, 8),
    (3, 17, 33),
    (5, 5, 2),
    (7, 64, 768),
    (50, 48, 100),
    (50, 33, 257),
    (1, 200, 64),
    (13, 130, 31),
    (400, 24, 768),  # several blocks of rows
]
needs_library = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on the PATH")
each_path = pytest.mark.parametrize("path", library.supported_paths() or [pytest.param("", marks=needs_library)])
both_kinds = pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def activations(symmetric: bool) -> QuantSpec:
    return QuantSpec(symmetric=symmetric, granularity="token")


def example(m: int, n: int, k: int, seed: int = 0):
    """x, qweight (the full int8 range), weight scale, bias."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(m, k, generator=g) * torch.randn(m, 1, generator=g).exp() + torch.randn(m, 1, generator=g)
    weight = torch.randint(-128, 128, (n, k), generator=g, dtype=torch.int8)
    return x, weight, torch.rand(n, generator=g) / 50, torch.randn(n, generator=g)


def exact_sums(x, weight, symmetric):
    """sum((q - zero_point) * weight) without rounding (float64 holds every value), and the rows' scales."""
    spec = activations(symmetric)
    scale, zero_point = functional.choose_qparams(x, spec)
    q = functional.quantize(x, scale, zero_point, spec)
    return (q.double() - zero_point.double()) @ weight.double().T, scale


def reference(x, weight, weight_scale, bias, symmetric):
    sums, scale = exact_sums(x, weight, symmetric)
    y = sums.float() * weight_scale * scale
    return y if bias is None else y + bias


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def linear(x, weight, weight_scale, bias, symmetric, path=None):
    return native.PackedLinear(weight, weight_scale, bias, symmetric, path)(x)


@needs_compiler
def test_the_library_is_there_where_a_compiler_is():
    assert library.available(), library.why_not()
    assert library.why_not() == ""
    assert library.supported_paths()[0] == "portable"
    assert library.best_path() == library.supported_paths()[-1]


@each_path
@both_kinds
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_definition(path, symmetric, shape):
    x, weight, scale, bias = example(*shape)
    for b in (bias, None):
        assert_same(linear(x, weight, scale, b, symmetric, path), reference(x, weight, scale, b, symmetric))


@each_path
@both_kinds
def test_is_within_rounding_of_float64(path, symmetric):
    x, weight, scale, bias = example(11, 50, 300)
    sums, row_scale = exact_sums(x, weight, symmetric)
    product = sums * row_scale.double() * scale.double()
    y = linear(x, weight, scale, bias, symmetric, path).double()
    bound = 4 * torch.finfo(torch.float32).eps * (product.abs() + bias.abs())
    assert ((y - product - bias).abs() <= bound).all()


@each_path
@both_kinds
def test_rows_are_quantized_as_defined(path, symmetric):
    spec = activations(symmetric)
    rows = example(40, 1, 77)[0]
    halves = torch.arange(-254, 255).repeat(2)[:77] / 2  # ties, which must round to even
    ends = torch.tensor([[0.0], [-3.0], [5.0], [1e-44], [-1e-38], [3e38], [1e-30]]).expand(-1, 77)
    for x in (rows, rows.abs(), -rows.abs(), rows + 100, halves[None] * 2**-5, ends, torch.zeros(1, 77)):
        scale, zero_point = functional.choose_qparams(x, spec)
        q, s, z = native.quantize_rows(x, symmetric, path)
        assert_same(s, scale)
        assert_same(z.float(), zero_point)
        assert_same(q, functional.quantize(x, scale, zero_point, spec))


@each_path
@both_kinds
@pytest.mark.parametrize("w", [127, -127, -128])
@pytest.mark.parametrize("k", [7, 4096])
def test_extremes_do_not_saturate(path, symmetric, w, k):
    patterns = [torch.ones(k), -torch.ones(k), torch.ones(k).index_fill(0, torch.arange(0, k, 2), -1.0)]
    x = torch.stack(patterns) * 2.5
    mixed = torch.full((17, k), w, dtype=torch.int8)
    mixed[1::2, 1::2] = 127
    scale = torch.ones(17)
    assert_same(linear(x, mixed, scale, None, symmetric, path), reference(x, mixed, scale, None, symmetric))


@each_path
@both_kinds
def test_rows_of_zeros_give_the_bias(path, symmetric):
    _, weight, scale, bias = example(4, 20, 30)
    assert_same(linear(torch.zeros(4, 30), weight, scale, bias, symmetric, path), bias.expand(4, -1).contiguous())


@each_path
@both_kinds
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_value_poisons_its_row_and_no_other(path, symmetric, bad):
    x, weight, scale, bias = example(9, 20, 37)
    for column in (0, 17, 36):
        x[column % 9, column] = bad
    y = linear(x, weight, scale, bias, symmetric, path)
    assert_same(y, reference(x, weight, scale, bias, symmetric))
    assert y.isnan().any(1).tolist() == y.isnan().all(1).tolist() == (~x.isfinite()).any(1).tolist()


@each_path
def test_layouts_of_x(path):
    x, weight, scale, bias = example(12, 10, 40)
    wide, tall = torch.randn(12, 100), torch.randn(40, 12)
    views = [
        wide[:, 7:47],
        wide[::2, 60:],
        wide[:, :80:2],
        tall.T,
        x[:1].expand(5, -1),
        x.reshape(3, 4, 40).transpose(0, 1),
        x[0],
        x[:0],
        x.reshape(2, 1, 6, 40)[:, :, :0],
    ]
    for view in views:
        y = linear(view, weight, scale[:, None], bias, False, path)
        assert y.shape == (*view.shape[:-1], 10)
        assert_same(y.reshape(-1, 10), reference(view.reshape(-1, 40), weight, scale, bias, False))


@needs_library
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_computed_in_float32(dtype):
    x, weight, scale, bias = example(6, 10, 40)
    y = linear(x.to(dtype), weight, scale, bias.to(dtype), False)
    assert y.dtype == dtype
    assert_same(y, reference(x.to(dtype).float(), weight, scale, bias.to(dtype).float(), False).to(dtype))


@each_path
@both_kinds
def test_any_number_of_threads_gives_the_same(path, symmetric, threads):
    x, weight, scale, bias = example(173, 90, 768)
    packed = native.PackedLinear(weight, scale, bias, symmetric, path)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(packed(x))
    assert_same(results[0], reference(x, weight, scale, bias, symmetric))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@each_path
def test_python_threads_side_by_side(path, threads):
    threads(2)
    cases = [example(m, 90, 500, seed=m) for m in (1, 8, 50, 120)] * 5
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda case: linear(*case, False, path), cases))
    for case, y in zip(cases, results, strict=True):
        assert_same(y, reference(*case, False))


@each_path
def test_random_shapes(path, threads):
    threads(1)  # the small matrices of the reference do not gain from more
    g = torch.Generator().manual_seed(7)
    for seed in range(200):
        m, n, k = (int(torch.randint(1, limit, (), generator=g)) for limit in (30, 150, 200))
        x, weight, scale, bias = example(m, n, k, seed)
        symmetric = seed % 2 == 0
        y = linear(x, weight, scale, bias, symmetric, path)
        assert torch.equal(y, reference(x, weight, scale, bias, symmetric)), (m, n, k)


@needs_library
def test_errors_say_what_is_wrong():
    x, weight, scale, bias = example(2, 4, 6)
    packed = native.PackedLinear(weight, scale, bias)
    for bad, words in [
        (x[:, :5], r"\[2, 5\].* 6 "),
        (x.int(), "int32"),
        (torch.tensor(1.0), "6"),
        (x.to("meta"), "meta"),
    ]:
        with pytest.raises(QuantizationError, match=words):
            packed(bad)
    with pytest.raises(UnknownNameError, match="avx2000"):
        native.PackedLinear(weight, scale, path="avx2000")
    for wrong in [
        (weight.float(), scale, bias),
        (weight[0], scale, bias),
        (weight, scale[1:], bias),
        (weight, scale, x),
    ]:
        with pytest.raises(QuantizationError):
            native.PackedLinear(*wrong)
    with pytest.raises(QuantizationError, match="65793"):
        native.PackedLinear(torch.ones(1, 65794, dtype=torch.int8), torch.ones(1))


def build(library: Path, compiler: str) -> subprocess.CompletedProcess[str]:
    code = f"import hatch_build, pathlib; hatch_build.build(pathlib.Path({str(library)!r}), ['-O0', '-Werror'])"
    env = {**os.environ, "CXX": compiler}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@needs_compiler
def test_a_compiler_that_knows_no_instruction_sets_builds_the_portable_path(tmp_path):
    old = tmp_path / "old-compiler"
    old.write_text(
        f'#!/bin/sh\ncase "$*" in *-mavx*) echo "error: what is -mavx?" >&2; exit 1;; esac\nexec {COMPILER} "$@"\n'
    )
    old.chmod(0o755)
    done = build(tmp_path / "lib.so", str(old))
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(str(tmp_path / "lib.so"))
    assert [library.clipq_supports(path) for path in range(-1, 6)] == [0, 1, 0, 0, 0, 0, 0]
    assert library.clipq_path() == 0


def test_without_a_compiler_the_build_says_so_in_one_line(tmp_path):
    done = build(tmp_path / "lib.so", str(tmp_path / "no-such-compiler"))
    assert done.returncode != 0
    assert "NotBuiltError" in done.stderr.splitlines()[-1]
    assert "no-such-compiler" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@needs_library
def test_gathered_rows_are_the_dequantized_ones():
    table, scale = torch.randint(-128, 128, (50, 37), dtype=torch.int8), torch.rand(50, 1)
    for ids in (torch.randint(50, (3, 7)), torch.tensor([[0, 49]], dtype=torch.int32), torch.tensor(4)):
        assert_same(native.gather_rows(table, scale, ids), (table * scale)[ids.long()])
    assert native.gather_rows(table, scale, torch.empty(0, 2, dtype=torch.int64)).shape == (0, 2, 37)
    assert_same(native.gather_rows(table.T, scale[:37], torch.tensor([36])), (table.T * scale[:37])[36:])


@needs_library
@pytest.mark.parametrize("ids", [[50], [-1, 3]], ids=str)
def test_ids_beyond_the_table_are_refused(ids):
    with pytest.raises(IndexError, match="between 0 and 49"):
        native.gather_rows(torch.zeros(50, 4, dtype=torch.int8), torch.ones(50, 1), torch.tensor(ids))
