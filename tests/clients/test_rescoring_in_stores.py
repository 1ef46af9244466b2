"""Candidates of faiss and usearch indexes of codes, rescored by vectors in a mapped file: what exact search finds."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import clipq
from clipq.matrices import Embeddings, Rows, open_rows, save_embeddings
from clipq.resources import resource
from clipq.vectors import default_ranges, queries, rescore

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]  # of other people's packages

COUNT, K = 300, 10


@pytest.fixture(scope="module")
def floats() -> Embeddings:
    """300 of the drawings that ship with the evaluation, by clipq-tiny."""
    model = clipq.load("clipq-tiny")
    held = parquet.read_table(resource("eval", "data", "drawings.parquet"), columns=["image"])
    rows = held["image"].slice(0, COUNT).to_pylist()
    pictures = [Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in rows]
    matrix = model.encode_image(torch.stack([model.preprocess(one) for one in pictures]), normalize=True)
    about = {"fingerprint": model.fingerprint(), "tower": "image", "normalized": True}
    ranges = default_ranges(model, "image")
    return Embeddings(tuple(map(str, range(COUNT))), matrix, {}, about, ranges=ranges)


@pytest.fixture
def kept(floats, tmp_path) -> Callable[[str], Rows]:
    """The rows as a dtype, in a file that is mapped."""

    def on_disk(dtype: str) -> Rows:
        path = tmp_path / f"{dtype}.npy"
        save_embeddings(floats.as_dtype(dtype, floats.ranges), path)
        return open_rows(path)

    return on_disk


def by_faiss(floats: Embeddings, dtype: str, count: int) -> numpy.ndarray:
    faiss = pytest.importorskip("faiss")
    codes = floats.as_dtype(dtype, floats.ranges).matrix.numpy()
    asked = queries(floats.matrix, dtype, floats.ranges).numpy()
    if dtype == "ubinary":
        index = faiss.IndexBinaryFlat(floats.matrix.shape[1])
    else:
        direct = faiss.ScalarQuantizer.QT_8bit_direct_signed
        index = faiss.IndexScalarQuantizer(codes.shape[1], direct, faiss.METRIC_INNER_PRODUCT)
        codes, asked = codes.astype(numpy.float32), asked.astype(numpy.float32)
    index.add(codes)
    return index.search(asked, count)[1]


def by_usearch(floats: Embeddings, dtype: str, count: int) -> numpy.ndarray:
    index_of = pytest.importorskip("usearch.index").Index
    codes = floats.as_dtype(dtype, floats.ranges).matrix.numpy()
    metric, kind = {"ubinary": ("hamming", "b1"), "int8": ("cos", "i8")}[dtype]
    index = index_of(ndim=floats.matrix.shape[1], metric=metric, dtype=kind)
    index.add(numpy.arange(len(codes)), codes)
    asked = queries(floats.matrix, dtype, floats.ranges).numpy()
    return index.search(asked, count, exact=True).keys  # its graph finds all or nearly all, by chance


def test_fewer_rows_than_usearch_is_asked_for(floats):
    """It fills up with zeros, and row 0 is not among what it found."""
    index = pytest.importorskip("usearch.index").Index(ndim=floats.matrix.shape[1], metric="cos", dtype="f32")
    index.add(numpy.arange(50, 55), floats.matrix[50:55].numpy())
    asked = floats.matrix[:20].numpy()
    found = rescore(asked, index.search(asked, K), floats.matrix, K).rows
    assert {*found[:, :5].ravel().tolist()} == {*range(50, 55)} and (found[:, 5:] == -1).all()
    one = rescore(asked[:1], index.search(asked[0], K), floats.matrix, K).rows
    assert numpy.array_equal(one, found[:1])


def recall(found: numpy.ndarray, wanted: numpy.ndarray) -> float:
    return float(numpy.mean([len({*a} & {*b}) / K for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))


def exact(floats: Embeddings) -> numpy.ndarray:
    matrix = floats.matrix.double().numpy()
    return numpy.argsort(-(matrix @ matrix.T), axis=1, kind="stable")[:, :K]


@pytest.mark.parametrize("search", [by_faiss, by_usearch])
@pytest.mark.parametrize(("dtype", "count", "least"), [("int8", 40, 1.0), ("ubinary", 150, 0.99)])
def test_float32_rows_bring_back_what_exact_search_finds(search, dtype, count, least, floats, kept):
    candidates = search(floats, dtype, count)
    found = kept("float32").rescore(floats.matrix, candidates, K)
    alone = recall(candidates[:, :K], exact(floats))
    assert recall(found.rows, exact(floats)) >= max(least, alone)
    assert (found.rows[:, 0] == range(COUNT)).all()  # its own nearest
    theirs = (floats.matrix.double() @ floats.matrix.double().T).numpy()
    numpy.testing.assert_allclose(found.scores, numpy.take_along_axis(theirs, found.rows, 1), rtol=1e-6)


@pytest.mark.parametrize("search", [by_faiss, by_usearch])
@pytest.mark.parametrize(("by", "least"), [("float16", 0.99), ("int8", 0.97), ("int8-per-dimension", 0.97)])
def test_codes_rescore_too(search, by, least, floats, kept):
    found = kept(by).rescore(floats.matrix, search(floats, "ubinary", 150), K)
    assert recall(found.rows, exact(floats)) >= least


def test_all_rows_rescored_are_faiss_flat_search(floats):
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatIP(floats.matrix.shape[1])
    index.add(floats.matrix.numpy())
    scores, _ = index.search(floats.matrix.numpy(), K)
    candidates = index.search(floats.matrix.numpy(), COUNT + 5)[1]
    assert (candidates[:, COUNT:] == -1).all()  # what faiss says of too few
    found = rescore(floats.matrix, candidates, floats.matrix, K)
    numpy.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    assert numpy.array_equal(found.rows, exact(floats))


def test_all_rows_rescored_are_usearch_exact_search(floats):
    exactly = pytest.importorskip("usearch.index").search
    metric = pytest.importorskip("usearch.index").MetricKind.IP
    theirs = exactly(floats.matrix.numpy(), floats.matrix.numpy(), COUNT, metric, exact=True)
    found = rescore(floats.matrix, theirs.keys, floats.matrix, COUNT)
    numpy.testing.assert_allclose(1 - found.scores, theirs.distances, atol=1e-5)
