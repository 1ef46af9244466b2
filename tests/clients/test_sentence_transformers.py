"""A SentenceTransformer around a CLIP: clipq reaches the transformers model inside, the wrapper stays what it was."""

from __future__ import annotations

import pytest
import torch

import clipq

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]  # of other people's packages


@pytest.fixture
def wrapped(clip_folder):
    return pytest.importorskip("sentence_transformers").SentenceTransformer(str(clip_folder), device="cpu")


def test_it_embeds_pictures_and_texts_in_int8(wrapped, drawings):
    inputs = (drawings[:2], ["a cat", "a dog"])
    before = [wrapped.encode(one, convert_to_tensor=True) for one in inputs]
    assert clipq.quantize(wrapped) is wrapped
    assert clipq.coverage(wrapped).block_share == 1
    for exact, one in zip(before, inputs, strict=True):
        found = wrapped.encode(one, convert_to_tensor=True)
        assert not torch.equal(exact, found)
        assert torch.cosine_similarity(exact, found).min() > 0.999


def test_a_model_of_it_is_the_one_inside(wrapped, drawings):
    model = clipq.quantize(clipq.Model(wrapped, processor=wrapped.processor))
    assert type(model.module).__name__ == "CLIPModel"
    pixels = torch.stack([model.preprocess(picture) for picture in drawings[:2]])
    theirs = wrapped.encode(drawings[:2], convert_to_tensor=True)
    assert torch.allclose(model.encode_image(pixels), theirs, atol=1e-4)
    assert torch.allclose(model.encode_text(["a cat"]), wrapped.encode(["a cat"], convert_to_tensor=True), atol=1e-4)


def test_its_space_is_that_of_the_model_inside(wrapped):
    clipq.quantize(wrapped)
    inside = clipq.Model(wrapped, processor=wrapped.processor).module
    for tower in ("image", "text"):
        assert clipq.space_of(wrapped, tower) == clipq.space_of(inside, tower)
