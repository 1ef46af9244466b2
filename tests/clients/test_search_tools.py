"""Vector search: the same neighbours whether the embeddings were made in fp32 or in int8."""

from __future__ import annotations

import numpy
import pytest
import torch

import clipq

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]  # of other people's packages


@pytest.fixture(scope="module")
def embeddings(drawings) -> dict[str, numpy.ndarray]:
    """Of the same drawings, by the same model in two precisions."""
    models = {precision: clipq.load("clipq-tiny", precision) for precision in ("fp32", "int8")}
    pixels = torch.stack([models["fp32"].preprocess(picture) for picture in drawings])
    return {name: model.encode_image(pixels, normalize=True).numpy() for name, model in models.items()}


def nearest(found: numpy.ndarray) -> set[tuple[int, int]]:
    """Pairs of a drawing and another among its nearest."""
    return {(row, int(other)) for row, others in enumerate(found) for other in others}


def exact(embeddings: numpy.ndarray, k: int) -> numpy.ndarray:
    return numpy.argsort(-embeddings @ embeddings.T, axis=1)[:, :k]


def assert_same_neighbours(search, embeddings: dict[str, numpy.ndarray]) -> None:
    found = {name: search(matrix, 3) for name, matrix in embeddings.items()}
    assert nearest(found["int8"]) == nearest(exact(embeddings["int8"], 3))
    assert (found["int8"][:, 0] == range(len(found["int8"]))).all()  # its own nearest
    shared = nearest(found["fp32"]) & nearest(found["int8"])
    assert len(shared) >= 0.9 * len(nearest(found["fp32"]))


def test_faiss(embeddings):
    faiss = pytest.importorskip("faiss")

    def search(matrix: numpy.ndarray, k: int) -> numpy.ndarray:
        index = faiss.IndexFlatIP(matrix.shape[1])
        index.add(matrix)
        return index.search(matrix, k)[1]

    assert_same_neighbours(search, embeddings)


def test_usearch(embeddings):
    usearch = pytest.importorskip("usearch.index")

    def search(matrix: numpy.ndarray, k: int) -> numpy.ndarray:
        index = usearch.Index(ndim=matrix.shape[1], metric="cos", dtype="f32")
        index.add(numpy.arange(len(matrix)), matrix)
        return index.search(matrix, k).keys

    assert_same_neighbours(search, embeddings)
