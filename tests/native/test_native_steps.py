"""Each native step over numpy arrays against the same in float64, on odd sizes and threads."""

from __future__ import annotations

import numpy as np
import pytest

from clipq.native import library, steps
from clipq.native.blocks import Matrix, Norm

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")

threads = pytest.mark.parametrize("threads", [1, 3])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def norm_of(rng: np.random.Generator, width: int) -> Norm:
    return Norm(floats(rng, width), floats(rng, width), 1e-5)


def normed(x: np.ndarray, norm: Norm) -> np.ndarray:
    x = x.astype(np.float64)
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.eps)
    return y * norm.weight.astype(np.float64) + norm.bias.astype(np.float64)


@threads
@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (2, 3, 9, 8), (5, 3, 14, 21), (3, 4, 32, 16)])
@pytest.mark.parametrize("patch", [(4, 4), (2, 3)])
def test_patches_are_those_of_a_convolution(rng, shape, patch, threads):
    x = floats(rng, *shape)
    (batch, channels, height, width), (down, across) = shape, patch
    tall, wide = height // down, width // across
    whole = x[:, :, : tall * down, : wide * across].reshape(batch, channels, tall, down, wide, across)
    wanted = whole.transpose(0, 2, 4, 1, 3, 5).reshape(batch * tall * wide, -1)
    assert np.array_equal(steps.cut_patches(x, patch, threads), wanted)


@threads
@pytest.mark.parametrize("width", [1, 7, 64, 200])
@pytest.mark.parametrize("prefixes", [0, 1, 5])
@pytest.mark.parametrize("places", [False, True])
def test_tokens_are_joined_in_order(rng, width, prefixes, places, threads):
    batch, patches = 3, 10
    rows, prefix = floats(rng, batch * patches, width), floats(rng, prefixes, width)
    positions = floats(rng, patches, width) if places else None
    added = rows.reshape(batch, patches, width) + (0 if positions is None else positions)
    wanted = np.concatenate([np.broadcast_to(prefix, (batch, prefixes, width)), added], axis=1).reshape(-1, width)
    assert np.array_equal(steps.join_tokens(rows, batch, prefix, positions, None, threads), wanted)
    if width > 1:
        norm = norm_of(rng, width)
        found = steps.join_tokens(rows, batch, prefix, positions, norm, threads)
        assert np.array_equal(found, normed(wanted, norm).astype(np.float32))


@threads
@pytest.mark.parametrize("width", [2, 7, 64, 513])
def test_norms_are_rounded_once(rng, width, threads):
    x, norm = floats(rng, 37, width) * 100 + 5, norm_of(rng, width)
    assert np.array_equal(steps.layer_norm(x, norm, threads), normed(x, norm).astype(np.float32))


@threads
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (1, 64, 48), (5, 33, 17), (40, 200, 129)])
@pytest.mark.parametrize("bias", [False, True])
def test_float_linears(rng, rows, inputs, outputs, bias, threads):
    x, weight, added = floats(rng, rows, inputs), floats(rng, outputs, inputs), floats(rng, outputs)
    found = steps.FloatLinear(weight, added if bias else None)(x, threads)
    wanted = x.astype(np.float64) @ weight.T.astype(np.float64) + (added if bias else 0)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-6 * inputs + 1e-6


@threads
@pytest.mark.parametrize(("tokens", "heads", "dim"), [(1, 1, 8), (5, 2, 16), (196, 3, 64), (33, 2, 72)])
def test_the_pools_attention(rng, tokens, heads, dim, threads):
    batch, width = 3, heads * dim
    query, kv = floats(rng, width), floats(rng, batch * tokens, 2 * width)
    k, v = (kv.astype(np.float64).reshape(batch, tokens, 2, heads, dim)[:, :, i] for i in range(2))
    scores = np.einsum("hd,bthd->bht", query.reshape(heads, dim), k) / np.sqrt(dim)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    wanted = np.einsum("bht,bthd->bhd", shares, v).reshape(batch, width)
    assert np.abs(steps.pool_attention(query, kv, batch, heads, threads) - wanted).max() < 1e-5


@threads
def test_int8_linears_are_exact_and_static_ranges_saturate(rng, threads):
    weight = rng.integers(-128, 128, (24, 40)).astype(np.int8)
    scale, bias = np.abs(floats(rng, 24)), floats(rng, 24)
    x = floats(rng, 9, 40)
    q = np.clip(np.round(x / np.float32(0.02)) + 3, -128, 127)
    wanted = ((q - 3) @ weight.T.astype(np.float64)) * scale * np.float32(0.02) + bias
    found = steps.Linear(Matrix(weight, scale, bias, 0.02, 3))(x, threads)
    assert np.allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_rows_of_a_table(rng):
    table, scale = rng.integers(-127, 128, (50, 17)).astype(np.int8), np.abs(floats(rng, 50))
    ids = np.array([0, 49, 7, 7], np.int64)
    assert np.array_equal(steps.gather_rows(table, scale, ids, 2), table[ids].astype(np.float32) * scale[ids, None])
