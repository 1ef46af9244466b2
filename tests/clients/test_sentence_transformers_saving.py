"""A SentenceTransformer around a quantized module is saved and read back, bit for bit; what is inside it, too."""

from __future__ import annotations

import pytest
import torch

import clipq
from clipq.files.header import GUARDED_FILE

sentence_transformers = pytest.importorskip("sentence_transformers")

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]  # of other people's packages

TEXTS = ["a photo of a cat", "a dog"]


def embeddings(model: sentence_transformers.SentenceTransformer, pictures: list) -> list[torch.Tensor]:
    return [model.encode(one, convert_to_tensor=True) for one in (pictures, TEXTS)]


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def inner_of(model: sentence_transformers.SentenceTransformer) -> torch.nn.Module:
    """The module of transformers inside."""
    return next(part for part in model.modules() if type(part).__name__ == "CLIPModel")


@pytest.mark.parametrize("method", ["save", "save_pretrained"])
@pytest.mark.parametrize("precision", ["int8", {"image": "int4", "text": "int8-weight-only"}], ids=["int8", "mixed"])
def test_saved_and_read_back(clip_folder, tmp_path, method, precision, drawings):
    model = sentence_transformers.SentenceTransformer(str(clip_folder), device="cpu")
    floats = embeddings(model, drawings[:2])
    clipq.quantize(model, precision)
    expected = embeddings(model, drawings[:2])
    assert not torch.equal(floats[0], expected[0])
    getattr(model, method)(str(tmp_path / "int8"))
    files = [path.name for path in (tmp_path / "int8").rglob("*.safetensors")]
    assert files == [GUARDED_FILE]
    read = sentence_transformers.SentenceTransformer(str(tmp_path / "int8"), device="cpu")
    assert_same(embeddings(read, drawings[:2]), expected)
    assert clipq.coverage(read).block_share == clipq.coverage(model).block_share == 1
    clipq.save(inner_of(read), tmp_path / "model.safetensors")


def test_quantized_while_it_is_loaded(clip_folder, tmp_path, drawings):
    config = clipq.ClipqConfig("int8")
    model = sentence_transformers.SentenceTransformer(
        str(clip_folder), device="cpu", model_kwargs={"quantization_config": config}
    )
    expected = clipq.quantize(sentence_transformers.SentenceTransformer(str(clip_folder), device="cpu"))
    assert_same(embeddings(model, drawings[:2]), embeddings(expected, drawings[:2]))
    model.save(str(tmp_path / "int8"))
    read = sentence_transformers.SentenceTransformer(str(tmp_path / "int8"), device="cpu")
    assert_same(embeddings(read, drawings[:2]), embeddings(expected, drawings[:2]))
