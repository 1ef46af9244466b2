"""faiss and usearch indexes of every usual kind give their vectors back, with their names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipq.errors import DataError
from clipq.indexes import Layout, open_index, search_libraries

pytestmark = pytest.mark.clients
ROWS, WIDTH = 600, 16


@pytest.fixture(scope="module")
def matrix():
    rows = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def named(folder, count):
    path = folder / "names.txt"
    path.write_text("".join(f"{i}.jpg\n" for i in range(count)), encoding="utf-8")
    return Layout(path)


@pytest.fixture
def names(tmp_path):
    """For numbers up to three times as many as there are rows."""
    return named(tmp_path, 3 * ROWS)


def read(path, layout, monkeypatch):
    monkeypatch.setattr(search_libraries, "ROWS", 250)
    found = open_index(path, layout)
    blocks = [block for _, block in found.blocks()]
    assert all(len(block) <= 250 for block in blocks)
    return found, torch.cat(blocks).numpy()


KINDS = {
    "Flat": 0,
    "HNSW8": 0,
    "IVF8,Flat": 0,
    "L2norm,Flat": 1e-6,
    "SQfp16": 1e-3,
    "SQ8": 0.02,
    "IVF8,SQ8": 0.02,
    "PQ8x6": 0.2,
    "OPQ8,IVF8,PQ8x6": 0.2,
    "IDMap,Flat": 0,
    "IDMap2,HNSW8": 0,
}
"""faiss' names of kinds, and how far a value that comes back may be from what went in."""


@pytest.mark.parametrize("kind", KINDS)
def test_faiss(kind, matrix, tmp_path, monkeypatch):
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)  # a hundred times slower where two wait for a core that others have
    index = faiss.index_factory(WIDTH, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(matrix)
    ids = np.arange(ROWS)[::-1] * 3 if kind.startswith("IDMap") else np.arange(ROWS)
    index.add_with_ids(matrix, ids) if kind.startswith("IDMap") else index.add(matrix)
    faiss.write_index(index, str(tmp_path / "old.faiss"))
    names = named(tmp_path, 3 * ROWS if kind.startswith("IDMap") else ROWS)
    found, rows = read(tmp_path / "old.faiss", names, monkeypatch)
    assert found.names == tuple(f"{i}.jpg" for i in ids)
    assert found.exact == (KINDS[kind] <= 1e-3), found.kind
    assert found.metric == "inner product"
    np.testing.assert_allclose(rows, matrix, atol=2 * KINDS[kind] + 1e-7)


def test_what_faiss_does_not_give_back(matrix, names, tmp_path):
    faiss = pytest.importorskip("faiss")
    faiss.write_index_binary(faiss.IndexBinaryFlat(WIDTH), str(tmp_path / "bits.faiss"))
    (tmp_path / "none.faiss").write_bytes(b"nothing of the kind")
    for name in ("bits", "none"):
        with pytest.raises(DataError, match="no faiss index that can be read"):
            open_index(tmp_path / f"{name}.faiss", names)


@pytest.mark.parametrize(("dtype", "far"), [("f32", 0), ("f64", 0), ("f16", 1e-3), ("bf16", 4e-3), ("i8", 0.02)])
def test_usearch(dtype, far, matrix, names, tmp_path, monkeypatch):
    library = pytest.importorskip("usearch.index")
    index = library.Index(ndim=WIDTH, metric="cos", dtype=dtype)
    keys = np.random.default_rng(1).permutation(ROWS) * 2
    index.add(keys, matrix)
    index.save(str(tmp_path / "old.usearch"))
    found, rows = read(tmp_path / "old.usearch", names, monkeypatch)
    assert found.names == tuple(f"{i}.jpg" for i in sorted(keys))
    expected = matrix[np.argsort(keys)]
    cosines = (rows * expected).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() >= 1 - far
    assert found.exact == (dtype != "i8") and found.metric is None


def faiss_ivf(matrix, ids, path):
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(WIDTH, "IVF8,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(matrix)
    index.add_with_ids(matrix, ids)
    faiss.write_index(index, str(path))
    return path


@pytest.mark.parametrize("ids", [np.arange(ROWS)[::-1].copy(), np.arange(ROWS) * 3])
def test_numbers_in_inverted_lists(ids, matrix, tmp_path, monkeypatch):
    path = faiss_ivf(matrix, ids, tmp_path / "old.faiss")
    found, rows = read(path, named(tmp_path, ids.max() + 1), monkeypatch)
    assert found.names == tuple(f"{i}.jpg" for i in sorted(ids))
    np.testing.assert_array_equal(rows, matrix[np.argsort(ids)])


def test_what_has_several_vectors_for_a_number(matrix, names, tmp_path):
    path = faiss_ivf(matrix, np.maximum(np.arange(ROWS), 1), tmp_path / "old.faiss")
    with pytest.raises(DataError, match="2 vectors have the number 1 or others that are given twice"):
        open_index(path, names)
    library = pytest.importorskip("usearch.index")
    index = library.Index(ndim=WIDTH, metric="cos", multi=True)
    index.add(np.arange(ROWS) // 2, matrix)
    index.save(str(tmp_path / "old.usearch"))
    with pytest.raises(DataError, match="several vectors under one key"):
        open_index(tmp_path / "old.usearch", names)


@pytest.mark.parametrize(("metric", "name"), [("inner product", "METRIC_INNER_PRODUCT"), ("L2", "METRIC_L2")])
@pytest.mark.parametrize("kind", ["Flat", "PQ8x6"])
def test_lengths_that_the_index_ranks_by(metric, name, kind, matrix, tmp_path):
    faiss, spread = pytest.importorskip("faiss"), np.linspace(0.5, 2, ROWS, dtype=np.float32)[:, None]
    for rows, words in ((matrix, ""), (matrix * spread, f"ranks by {metric} and its vectors are 0.")):
        index = faiss.index_factory(WIDTH, kind, getattr(faiss, name))
        index.train(rows)
        index.add(rows)
        faiss.write_index(index, str(tmp_path / "old.faiss"))
        found = open_index(tmp_path / "old.faiss", named(tmp_path, ROWS))
        if not words:
            assert sum(len(block) for _, block in found.blocks()) == ROWS
            continue
        with pytest.raises(DataError, match=words):
            list(found.blocks())


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "i8"])
def test_rounded_vectors_are_of_one_length(dtype, matrix, names, tmp_path, monkeypatch):
    library = pytest.importorskip("usearch.index")
    index = library.Index(ndim=WIDTH, metric="ip", dtype=dtype)
    index.add(np.arange(ROWS) * 2, matrix)
    index.save(str(tmp_path / "old.usearch"))
    assert read(tmp_path / "old.usearch", names, monkeypatch)[0].metric == "inner product"


def test_a_metric_of_its_own(matrix, tmp_path):
    faiss = pytest.importorskip("faiss")
    faiss.write_index(faiss.index_factory(WIDTH, "Flat", faiss.METRIC_L1), str(tmp_path / "old.faiss"))
    with pytest.raises(DataError, match="ranks by the metric 2, and what is compared here are cosines"):
        open_index(tmp_path / "old.faiss", named(tmp_path, 1))


def test_what_usearch_does_not_give_back(names, tmp_path):
    library = pytest.importorskip("usearch.index")
    bits = library.Index(ndim=WIDTH, metric="hamming", dtype="b1")
    bits.add(np.arange(3), np.packbits(np.eye(3, WIDTH) > 0, axis=1))
    bits.save(str(tmp_path / "bits.usearch"))
    with pytest.raises(DataError, match="give no floats back"):
        open_index(tmp_path / "bits.usearch", names)
    (tmp_path / "none.usearch").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="no usearch index that can be read"):
        open_index(tmp_path / "none.usearch", names)
