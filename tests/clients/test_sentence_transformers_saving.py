"""A SentenceTransformer around an int8 module is not saved: it would be read back with newly initialised weights."""

from __future__ import annotations

import pytest

import clipq
from clipq.errors import CheckpointError

sentence_transformers = pytest.importorskip("sentence_transformers")

pytestmark = pytest.mark.clients


def inner_of(model: sentence_transformers.SentenceTransformer) -> object:
    """The module of transformers inside."""
    return next(part for part in model.modules() if type(part).__name__ == "CLIPModel")


@pytest.mark.parametrize("method", ["save", "save_pretrained"])
def test_saving_is_refused_and_says_what_to_do(clip_folder, tmp_path, method):
    model = sentence_transformers.SentenceTransformer(str(clip_folder), device="cpu")
    getattr(model, method)(str(tmp_path / "float"))
    before = model.encode(["a photo of a cat"])
    clipq.quantize(inner_of(model))
    after = model.encode(["a photo of a cat"])
    assert before == pytest.approx(after, abs=0.2)
    with pytest.raises(CheckpointError, match=r"this CLIPModel.*clipq.save\(module, path\)"):
        getattr(model, method)(str(tmp_path / "int8"))
    assert not list((tmp_path / "int8").rglob("*.safetensors"))
    clipq.save(inner_of(model), tmp_path / "model.safetensors")
