"""Every kind of vector in usearch and faiss: taken as it is, found exactly, and near what float32 finds."""

from __future__ import annotations

import numpy
import pytest
import torch

import clipq
from clipq.matrices import Embeddings
from clipq.vectors import DTYPES, default_ranges, queries

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]  # of other people's packages

K = 3
LEAST = {"float32": 1.0, "float16": 0.99, "int8": 0.9, "int8-per-dimension": 0.9, "ubinary": 0.4}
"""Of the float32 neighbours among 24 drawings, so many are found; recall is measured by measure_vectors.py."""


@pytest.fixture(scope="module")
def kept(drawings) -> dict[str, Embeddings]:
    """The same drawings as every dtype, by the model's own frozen ranges."""
    model = clipq.load("clipq-tiny")
    matrix = model.encode_image(torch.stack([model.preprocess(picture) for picture in drawings]), normalize=True)
    about = {"fingerprint": model.fingerprint(), "tower": "image", "normalized": True}
    floats = Embeddings(tuple(map(str, range(len(matrix)))), matrix, {}, about)
    ranges = default_ranges(model, "image")
    return {dtype: floats.as_dtype(dtype, ranges) for dtype in DTYPES}


def asked(kept: dict[str, Embeddings], dtype: str) -> numpy.ndarray:
    return queries(kept["float32"].matrix, dtype, kept[dtype].ranges).numpy()


def exact(rows: numpy.ndarray, queries: numpy.ndarray, bits: bool) -> numpy.ndarray:
    """[queries, rows]: the scores that an index is to find, the best largest, without any index."""
    if bits:
        return -(numpy.unpackbits(queries, axis=1)[:, None] != numpy.unpackbits(rows, axis=1)[None]).sum(-1)
    return queries.astype(numpy.float64) @ rows.astype(numpy.float64).T


def check(found: numpy.ndarray, kept: dict[str, Embeddings], dtype: str) -> None:
    """The found rows have the exact best scores (of equal ones any), and most are float32's neighbours."""
    scores = exact(kept[dtype].matrix.numpy(), asked(kept, dtype), dtype == "ubinary")
    best = -numpy.sort(-scores, axis=1)[:, :K]
    theirs = numpy.take_along_axis(scores, found.astype(numpy.int64), axis=1)
    numpy.testing.assert_allclose(theirs, best, rtol=2e-3)
    floats = kept["float32"].matrix.numpy()
    wanted = numpy.argsort(-exact(floats, floats, False), axis=1)[:, :K]
    share = numpy.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), wanted.tolist(), strict=True)])
    assert share >= LEAST[dtype]


USEARCH = {"float32": "f32", "float16": "f16", "int8": "i8", "int8-per-dimension": "i8", "ubinary": "b1"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_usearch(dtype, kept):
    index_of = pytest.importorskip("usearch.index").Index
    rows, width = kept[dtype].matrix.numpy(), kept[dtype].about["width"]
    index = index_of(ndim=width, metric="hamming" if dtype == "ubinary" else "ip", dtype=USEARCH[dtype])
    index.add(numpy.arange(len(rows)), rows)
    assert numpy.array_equal(index.get(5), rows[5])  # no cast, no scale of its own
    check(index.search(asked(kept, dtype), K).keys, kept, dtype)


def test_usearch_cosine_of_int8(kept):
    """`int8` codes are those of a multiple of the row, so that their cosine is the rows'."""
    index = pytest.importorskip("usearch.index").Index(ndim=192, metric="cos", dtype="i8")
    index.add(numpy.arange(24), kept["int8"].matrix.numpy())
    found = index.search(kept["int8"].matrix.numpy(), K)
    assert (found.keys[:, 0] == range(24)).all()
    floats = kept["float32"].matrix.double().numpy()
    cosines = numpy.take_along_axis(floats @ floats.T, found.keys.astype(numpy.int64), axis=1)
    numpy.testing.assert_allclose(1 - found.distances, cosines, atol=0.01)


def faiss_index(dtype: str, width: int):
    faiss = pytest.importorskip("faiss")
    quantizer = {
        "float16": faiss.ScalarQuantizer.QT_fp16,
        "int8": faiss.ScalarQuantizer.QT_8bit_direct_signed,
        "int8-per-dimension": faiss.ScalarQuantizer.QT_8bit_direct_signed,
    }
    if dtype == "ubinary":
        return faiss.IndexBinaryFlat(width)
    if dtype == "float32":
        return faiss.IndexFlatIP(width)
    return faiss.IndexScalarQuantizer(width, quantizer[dtype], faiss.METRIC_INNER_PRODUCT)


@pytest.mark.parametrize("dtype", DTYPES)
def test_faiss(dtype, kept):
    index = faiss_index(dtype, kept[dtype].about["width"])
    as_taken = numpy.asarray if dtype == "ubinary" else lambda rows: rows.astype(numpy.float32)  # all that faiss takes
    rows = kept[dtype].matrix.numpy()
    index.add(as_taken(rows))
    assert numpy.array_equal(index.reconstruct(5), rows[5])
    check(index.search(as_taken(asked(kept, dtype)), K)[1], kept, dtype)
