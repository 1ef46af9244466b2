"""Candidates sorted anew: exact by float64 brute force, whatever their order and number, from memory and from disk."""

from __future__ import annotations

from typing import NamedTuple

import numpy
import pytest
import torch

from clipq.errors import DataError, ResultError, SchemeError
from clipq.matrices import Embeddings, ShardedFolder, open_rows, save_embeddings
from clipq.matrices.folders import finish, write_shard
from clipq.vectors import DTYPES, Ranges, dequantize, quantize, ranges_of, rescore

ABOUT = {"fingerprint": "f", "tower": "image", "normalized": True}
ROWS, WIDTH = 400, 37


@pytest.fixture
def matrix() -> torch.Tensor:
    """Unit rows with a common direction, one wide dimension, and some rows that are there several times."""
    found = torch.randn(ROWS, WIDTH) + 0.5
    found[:, 3] *= 8
    found[100:110] = found[5]
    return torch.nn.functional.normalize(found)


@pytest.fixture
def asked() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(21, WIDTH) + 0.3)


@pytest.fixture
def ranges(matrix) -> Ranges:
    return ranges_of(matrix, ABOUT, "a test")


def brute(asked: torch.Tensor, rows: torch.Tensor, candidates: numpy.ndarray, k: int) -> numpy.ndarray:
    """[queries, k] by plain loops in float64: the largest first, of equals the first row."""
    queries, values = asked.double().numpy(), rows.double().numpy()
    found = []
    for query, own in zip(queries, candidates, strict=True):
        scored = sorted((-float((query * values[row]).sum()), row) for row in {*own.tolist()} - {-1})
        found.append(([row for _, row in scored] + [-1] * k)[:k])
    return numpy.array(found)


@pytest.fixture
def candidates(matrix) -> numpy.ndarray:
    """40 rows a query in no order; some are named twice, some queries have few."""
    made = numpy.random.default_rng(0)
    found = numpy.stack([made.permutation(ROWS)[:40] for _ in range(21)])
    found[:, 39] = found[:, 0]
    found[3, 4:] = -1
    found[4] = -1
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_brute_force_over_the_restored_rows(matrix, asked, candidates, ranges, dtype):
    codes, _ = quantize(matrix, dtype, ranges)
    found = rescore(asked, candidates, codes, 10, dtype=dtype, ranges=ranges)
    restored = dequantize(codes, dtype, ranges)
    assert numpy.array_equal(found.rows, brute(asked, restored, candidates, 10))
    exact = asked.double().numpy() @ restored.double().numpy().T
    there = found.rows >= 0
    numpy.testing.assert_allclose(
        found.scores[there], numpy.take_along_axis(exact, found.rows.clip(0), 1)[there], rtol=1e-12, atol=1e-14
    )
    assert (found.scores[~there] == -numpy.inf).all() and (~there)[4].all() and (~there)[3].sum() == 6


def test_all_rows_as_candidates_are_exact_search(matrix, asked):
    everything = numpy.broadcast_to(numpy.arange(ROWS), (len(asked), ROWS))
    exact = asked.double() @ matrix.double().T
    found = rescore(asked, everything, matrix, 10)
    wanted = exact.sort(dim=1, descending=True, stable=True)
    numpy.testing.assert_allclose(found.scores, wanted.values[:, :10].numpy(), rtol=1e-12)
    own = rescore(matrix, numpy.broadcast_to(numpy.arange(ROWS), (ROWS, ROWS)), matrix, 11).rows
    assert own[5].tolist() == [5, *range(100, 110)] == own[107].tolist()  # equal rows, the first one first


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_neither_order_nor_number_nor_parts_change_what_is_found(matrix, asked, candidates, ranges, dtype, monkeypatch):
    codes, _ = quantize(matrix, dtype, ranges)
    whole = rescore(asked, candidates, codes, 7, dtype=dtype, ranges=ranges)
    turned = rescore(asked, candidates[:, ::-1].astype(numpy.int32), codes, 7, dtype=dtype, ranges=ranges)
    for values in (1, WIDTH * 13):
        monkeypatch.setattr("clipq.vectors.rescoring._VALUES", values)
        parts = rescore(asked.numpy(), torch.from_numpy(candidates), codes.numpy(), 7, dtype=dtype, ranges=ranges)
        for other in (turned, parts):
            assert numpy.array_equal(other.rows, whole.rows) and numpy.array_equal(other.scores, whole.scores)
    one = rescore(asked[2:3], candidates[2:3], codes, 7, dtype=dtype, ranges=ranges)
    assert numpy.array_equal(one.rows[0], whole.rows[2]) and numpy.array_equal(one.scores[0], whole.scores[2])


@pytest.mark.parametrize("dtype", ["int8", "int8-per-dimension", "ubinary"])
def test_rows_of_unit_length_are_given_it_back(matrix, asked, candidates, ranges, dtype):
    codes, _ = quantize(matrix, dtype, ranges)
    found = rescore(asked, candidates, codes, 5, dtype=dtype, ranges=ranges, unit=True)
    restored = torch.nn.functional.normalize(dequantize(codes, dtype, ranges).double())
    assert numpy.array_equal(found.rows, brute(asked, restored, candidates, 5))
    assert not numpy.allclose(
        found.scores[0], rescore(asked, candidates, codes, 5, dtype=dtype, ranges=ranges).scores[0]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_queries_of_any_float_and_no_candidates_at_all(matrix, asked, candidates, dtype):
    found = rescore(asked.to(dtype), candidates, matrix, 3)
    assert numpy.array_equal(found.rows, brute(asked.to(dtype), matrix, candidates, 3))
    empty = rescore(asked, numpy.zeros((21, 0), numpy.int64), matrix, 3)
    assert (empty.rows == -1).all() and empty.rows.shape == empty.scores.shape == (21, 3)
    assert rescore(asked[:0], candidates[:0], matrix, 3).rows.shape == (0, 3)


class FewFound(NamedTuple):
    """As usearch returns what it found, padded with zeros."""

    keys: numpy.ndarray
    distances: numpy.ndarray
    counts: numpy.ndarray


def test_what_stands_beyond_the_counts_is_no_candidate(matrix, asked):
    counts = numpy.arange(21) % 5
    there = numpy.arange(6) < counts[:, None]
    keys = numpy.where(there, numpy.arange(100, 106), 0).astype(numpy.uint64)
    wanted = brute(asked, matrix, numpy.where(there, keys.astype(int), -1), 4)
    found = rescore(asked, FewFound(keys, keys.astype(float), counts), matrix, numpy.int64(4))
    assert numpy.array_equal(found.rows, wanted) and not (found.rows == 0).any()
    assert numpy.array_equal(rescore(asked, keys, matrix, 4, counts=counts).rows, wanted)
    with pytest.raises(DataError, match=r"counts are whole numbers \[21\]"):
        rescore(asked, keys, matrix, 4, counts=counts[:3])


def test_rows_in_another_order_of_bytes(matrix, asked, candidates):
    found = rescore(asked, candidates, matrix.numpy().astype(">f4"), 5)
    assert numpy.array_equal(found.rows, rescore(asked, candidates, matrix, 5).rows)


def test_what_does_not_fit_is_a_typed_error(matrix, asked, candidates, ranges):
    codes, _ = quantize(matrix, "int8", ranges)
    for wrong, words in (
        ({"asked": asked[:, :-1]}, r"float queries\s+\[21, 37\]"),
        ({"asked": asked[:-1]}, "float queries"),
        ({"asked": torch.zeros(21, WIDTH, dtype=torch.int8)}, "not codes"),
        ({"candidates": candidates.astype(float)}, "whole numbers"),
        ({"candidates": candidates[0]}, "whole numbers"),
        ({"candidates": candidates * 0 + 400}, "candidate is 400, and there are 400 rows, 0 to 399"),
        ({"candidates": candidates - 1}, "candidate is -2"),
        ({"candidates": numpy.full((21, 2), 2**63, numpy.uint64)}, "candidate is 9223372036854775808"),
        ({"rows": matrix[0]}, "matrix"),
        ({"rows": codes}, "float32 codes of width 37"),
        ({"dtype": "int8", "ranges": ranges}, "int8 codes of width 37"),
        ({"k": 0}, "k is 0"),
        ({"k": 2.0}, "k is 2.0"),
    ):
        with pytest.raises(DataError, match=words):
            rescore(**{"asked": asked, "candidates": candidates, "rows": matrix, **wrong})
    with pytest.raises(SchemeError, match="need ranges"):
        rescore(asked, candidates, codes, dtype="int8")
    matrix[candidates[0, 0]] = torch.nan
    with pytest.raises(ResultError, match=f"row {candidates[0, 0]} is not finite"):
        rescore(asked, candidates, matrix)
    asked[7, 1] = torch.inf
    with pytest.raises(ResultError, match="query 7 is not finite"):
        rescore(asked, candidates, matrix)


def embeddings(matrix: torch.Tensor, dtype: str, ranges: Ranges) -> Embeddings:
    names = tuple(f"p{row}.png" for row in range(len(matrix)))
    return Embeddings(names, matrix, {}, {**ABOUT, "dtype": "float32", "width": WIDTH}).as_dtype(dtype, ranges)


def in_shards(found: Embeddings, path, format: str, sizes=(150, 0, 249, 1)) -> None:
    into, start, entries = ShardedFolder(path, 300, format), 0, []
    path.mkdir()
    for number, size in enumerate(sizes):
        own = slice(start, start + size)
        part = Embeddings(found.names[own], found.matrix[own], {}, found.about, ranges=found.ranges)
        entries.append(write_shard(part, path / into.shard(number), start))
        start += size
    finish(path, found.about, entries)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["x.npy", "x.safetensors", "x.parquet", "safetensors", "parquet"])
def test_rows_on_disk_are_those_in_memory(matrix, asked, candidates, ranges, dtype, kind, tmp_path):
    kept, path = embeddings(matrix, dtype, ranges), tmp_path / kind
    save_embeddings(kept, path) if "." in kind else in_shards(kept, path, kind)
    rows = open_rows(path)
    assert rows.shape == (len(rows), kept.matrix.shape[1]) and len(rows) == ROWS and rows.dtype == dtype
    places = numpy.array([0, 3, 149, 150, 200, 398, 399])
    assert numpy.array_equal(rows[places], kept.matrix.numpy()[places]) and len(rows[places[:0]]) == 0
    assert rows.names([399, 0, 150, 0]) == ["p399.png", "p0.png", "p150.png", "p0.png"] and rows.names([]) == []
    found = rows.rescore(asked, candidates, 6)
    wanted = rescore(asked, candidates, kept.matrix, 6, dtype=dtype, ranges=ranges, unit=dtype != "float32")
    assert numpy.array_equal(found.rows, wanted.rows) and numpy.array_equal(found.scores, wanted.scores)
    for bad in ([3, 2], [3, 3], [-1], [400]):
        with pytest.raises(DataError, match="increasing order"):
            rows[numpy.array(bad)]
    with pytest.raises(DataError, match="0 to 399; asked for: 5 to 400"):
        rows.names([400, 5])


def test_each_row_is_read_once_and_a_missing_shard_is_named(matrix, asked, candidates, ranges, tmp_path):
    seen = []

    class Watched:
        shape = matrix.shape

        def __getitem__(self, places):
            seen.append(places)
            return matrix[places]

    rescore(asked, candidates, Watched(), 3)
    read = numpy.concatenate(seen)
    assert (numpy.diff(read) > 0).all() and {*read.tolist()} == {*candidates[candidates >= 0].tolist()}
    in_shards(embeddings(matrix, "int8", ranges), tmp_path / "x", "safetensors")
    (tmp_path / "x" / "shard-000002.safetensors").unlink()
    rows = open_rows(tmp_path / "x")
    assert len(rows[numpy.array([3, 149])]) == 2  # of what is there
    with pytest.raises(DataError, match="shard-000002"):
        rows.rescore(asked, candidates)


def test_a_matrix_larger_than_memory_is_mapped_not_read(tmp_path):
    """64 GB of zeros that take no room on disk: whoever read them would be seen."""
    width, count = 160, 400_000_000
    matrix = numpy.lib.format.open_memmap(tmp_path / "x.npy", "w+", numpy.int8, (count, width))
    matrix[count - 7, :3] = 1, 2, 3
    ranges = Ranges(torch.zeros(width), torch.ones(width), torch.tensor(127.0), ABOUT)
    asked = numpy.eye(1, width, 2, dtype=numpy.float32)
    mapped = numpy.load(tmp_path / "x.npy", mmap_mode="r")
    found = rescore(asked, numpy.array([[3, count - 7, count // 2]]), mapped, 1, dtype="int8", ranges=ranges)
    assert found.rows.tolist() == [[count - 7]] and found.scores.tolist() == [[3.0]]
