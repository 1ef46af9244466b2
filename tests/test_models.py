"""`Model`: one face, float32 out, whatever is inside."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tiny_models import build, open_clip_config

import clipq
from clipq.errors import ClipqError, QuantizationError
from clipq.inputs.tokenization import TokenizerSpec
from clipq.models import Model

TOKENIZER = TokenizerSpec({"kind": "open_clip", "context_length": 16})
PREPROCESSING = {"kind": "open_clip", "size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}


def whole(precision: str = "int8") -> Model:
    module = build("open_clip CLIP")
    model = Model(module, config=open_clip_config(), preprocessing=PREPROCESSING, tokenizer=TOKENIZER)
    return clipq.quantize(model, precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_embeddings_are_float32_and_of_length_one_if_asked(precision):
    model, pixels = whole(precision), torch.randn(2, 3, 32, 32)
    plain, unit = model.encode_image(pixels), model.encode_image(pixels, normalize=True)
    assert plain.dtype == unit.dtype == torch.float32
    assert torch.allclose(unit.norm(dim=-1), torch.ones(2))
    assert torch.allclose(torch.nn.functional.normalize(plain, dim=-1), unit)
    assert torch.allclose(model.encode_text("a cat", normalize=True).norm(), torch.ones(()))


def test_texts_are_a_string_a_list_or_token_ids():
    model = whole()
    tokens = model.tokenizer(["a cat", "a dog"])
    assert tokens.shape == (2, 16)
    both = model.encode_text(["a cat", "a dog"])
    assert torch.equal(both, model.encode_text(tokens))
    assert torch.allclose(model.encode_text("a cat")[0], both[0], atol=1e-6)
    assert torch.equal(model.encode_text(("a cat", "a dog")), both)


def test_classify_is_clips_zero_shot_rule():
    model = whole()
    images = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
    labels, templates = ["cat", "dog"], ["a photo of a {}", "a {c}."]
    found = model.classify(images, labels, templates)
    pixels = torch.stack([model.preprocess(image) for image in images])
    heads = [model.encode_text([f"a photo of a {x}", f"a {x}."], normalize=True).mean(0) for x in labels]
    heads = torch.nn.functional.normalize(torch.stack(heads), dim=-1)
    expected = (100 * model.encode_image(pixels, normalize=True) @ heads.T).softmax(-1)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found.sum(-1), torch.ones(3))
    assert torch.allclose(model.classify(images[0], labels, templates), found[:1], atol=1e-4)
    assert torch.allclose(model.classify(pixels, labels, templates), found, atol=1e-5)


def test_equal_texts_are_tokenized_and_encoded_once():
    model = whole("fp32")
    texts = ["a dog", "a cat", "a dog", "", "A Cat", "a dog"]  # CLIP's tokenizer makes small letters of capitals
    each = torch.cat([model.encode_text(text) for text in texts])
    given, rows = [], []
    tokenizer, linear = model.tokenizer, model.module.transformer.resblocks[-1].mlp.c_fc
    forward = linear.forward
    model.tokenizer = lambda some: given.append(some) or tokenizer(some)
    linear.forward = lambda x: rows.append(len(x)) or forward(x)
    found = model.encode_text(texts)
    assert (given, rows) == ([["a dog", "a cat", "", "A Cat"]], [3])
    assert torch.allclose(found, each, atol=1e-5)
    assert torch.equal(found[[1, 0, 0]], found[[4, 2, 5]])


def test_names_of_precision():
    assert whole("int8").precision_name == "int8"
    mixed = clipq.quantize(Model(build("open_clip CLIP")), {"image": "int8", "text": "fp16"})
    assert mixed.precision == {"image": "int8", "text": "fp16"}
    assert mixed.precision_name == "image=int8,text=fp16"
    assert Model(build("timm vision_transformer")).precision == {"image": "fp32"}
    assert "int8" in repr(whole())


def test_what_is_missing_is_said():
    bare = Model(build("open_clip CLIP"))
    with pytest.raises(ClipqError, match="without a tokenizer"):
        bare.encode_text("a cat")
    with pytest.raises(ClipqError, match="without preprocessing"):
        bare.classify(Image.new("RGB", (8, 8)), ["cat"])
    image_only = Model(build("transformers ViT"))
    with pytest.raises(QuantizationError, match="ViTModel has no text tower, only image"):
        image_only.encode_text(torch.zeros(1, 4, dtype=torch.long))


def test_source_and_fingerprint():
    one, other = whole(), whole("int8-weight-only")
    assert one.source["host"] == "open_clip"
    assert one.fingerprint() == whole().fingerprint()
    assert one.fingerprint() != whole("fp32").fingerprint()
    assert one.fingerprint() != other.fingerprint()  # same weights, other arithmetic
    assert one.device == torch.device("cpu")


def test_encoding_runs_without_gradients():
    found = whole("fp32").encode_image(torch.randn(1, 3, 32, 32, requires_grad=True))
    assert not found.requires_grad
