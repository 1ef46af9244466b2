"""`Model`: one face, float32 out, whatever is inside."""

from __future__ import annotations

import numpy
import pytest
import torch
from PIL import Image
from tiny_models import build, open_clip_config

import clipq
from clipq.errors import ClipqError, DataError, QuantizationError
from clipq.inputs.tokenizer_files import TokenizerSpec
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


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    "name", ["open_clip CLIP", "transformers CLIP", "transformers SigLIP", "timm vision_transformer"]
)
def test_none_at_all_are_no_rows(name, precision):
    model = clipq.quantize(Model(build(name)), precision)
    one = torch.zeros(1, *model.host.pixel_shape(model.module))
    for none in (one[:0], []):
        found = model.encode_image(none)
        assert found.shape == (0, *model.encode_image(one).shape[1:]) and found.dtype == torch.float32
    if "text" in model.towers:
        ids = torch.full((1, 16), 99)
        for none in (ids[:0], []):
            assert model.encode_text(none, normalize=True).shape == (0, *model.encode_text(ids).shape[1:])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_no_tower_takes_is_refused_at_the_border(precision):
    model = whole(precision)
    for pixels in (
        torch.zeros(2, 1, 3, 32, 32),
        torch.zeros(2, 3, 35, 35),
        torch.zeros(2, 3, 32, 32).byte(),
        5,
        ["no"],
    ):
        with pytest.raises(DataError):
            model.encode_image(pixels)
        with pytest.raises(DataError):
            model(image=pixels)
        with pytest.raises(DataError):
            model.classify(pixels, ["cat"])
    ids = model.tokenizer(["a cat"])
    for texts in (
        ids[0],
        ids.float(),
        ids - 1,
        ids.repeat(1, 2),
        torch.where(ids == 0, 49408, ids),
        5,
        [1, 2],
        b"a cat",
    ):
        with pytest.raises(DataError):
            model.encode_text(texts)
        with pytest.raises(DataError):
            model(text=texts)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["open_clip CLIP", "open_clip CustomTextCLIP", "transformers CLIP"])
def test_short_prompts_are_as_padded_ones(name, precision):
    model = clipq.quantize(Model(build(name)), precision)
    ids = torch.tensor([[5, 99 if "transformers" in name else 49407, *[0] * 14]])
    assert torch.allclose(model.encode_text(ids[:, :2]), model.encode_text(ids), atol=1e-5)
    assert model.encode_text(ids[:, :1]).isfinite().all()


def test_a_short_prompt_where_the_last_token_counts_is_what_the_host_says():
    with pytest.raises(DataError, match=r"CustomTextCLIP does not take inputs of shape \[1, 2\]"):
        Model(build("open_clip last token")).encode_text(torch.tensor([[5, 6]]))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_other_sizes_where_the_host_takes_them(precision):
    for name, size in (("timm scales", 192), ("transformers DINOv2", 40)):
        model = clipq.quantize(Model(build(name)), precision)
        assert len(model.encode_image(torch.randn(2, 3, size, size))) == 2
    with pytest.raises(DataError, match=r"VisionTransformer does not take inputs of shape \[1, 3, 50, 50\].*divisible"):
        Model(build("timm scales")).encode_image(torch.randn(1, 3, 50, 50))
    for odd in ({}, {"pixel_values": [1, 2]}, {"pixels": torch.zeros(1, 3, 32, 32)}):
        with pytest.raises(DataError, match="ViTModel does not take inputs of a mapping of"):
            Model(build("transformers ViT")).encode_image(odd)
    clip = clipq.quantize(Model(build("transformers CLIP")), precision)
    larger = {"pixel_values": torch.randn(2, 3, 64, 64), "interpolate_pos_encoding": True}
    assert clip.encode_image(larger).shape == (2, 512)
    assert torch.equal(clip.encode_image({"pixel_values": (x := torch.randn(2, 3, 32, 32))}), clip.encode_image(x))


def test_pictures_are_what_their_pixels_are(tmp_path):
    model, image = whole(), Image.effect_noise((40, 30), 60).convert("RGB")
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    expected = model.encode_image(model.preprocess(image)[None])
    for form in (image, tmp_path / "a.png", str(tmp_path / "a.png"), content, numpy.asarray(image)):
        assert torch.equal(model.encode_image(form), expected)
    assert torch.allclose(model.encode_image([image, content] * 50), expected.expand(100, -1), atol=1e-5)
    assert torch.allclose(model.encode_image([model.preprocess(image)] * 2), expected.expand(2, -1), atol=1e-5)


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers SigLIP"])
@pytest.mark.parametrize("seed", range(3))
def test_long_calls_have_the_bits_of_short_ones(name, seed):
    model = clipq.quantize(Model(build(name)))
    torch.manual_seed(seed)
    pixels, ids = torch.randn(300, 3, 32, 32), torch.randint(2, 90, (600, 16))
    parts = [model.encode_image(part) for part in pixels.split(100)]
    assert torch.equal(model.encode_image(pixels), torch.cat(parts))
    parts = [model.encode_text(part, normalize=True) for part in ids.split(100)]
    assert torch.equal(model.encode_text(ids, normalize=True), torch.cat(parts))


def test_a_long_list_of_texts():
    model = whole()
    texts = [f"cat {place % 290}" for place in range(700)]
    found = model.encode_text(texts)
    assert torch.equal(found, model.encode_text(texts[:290])[[place % 290 for place in range(700)]])
    assert not found.is_inference()


def test_classify_says_what_is_missing():
    model, image = whole(), Image.new("RGB", (8, 8))
    for arguments, message in [
        ((image, "cat"), "one string"),
        ((image, []), "labels is empty"),
        ((image, ["cat"], ["a photo"]), "no place"),
        (([], ["cat"]), "no images"),
        ((torch.zeros(0, 3, 32, 32), ["cat"]), "no images"),
    ]:
        with pytest.raises(DataError, match=message):
            model.classify(*arguments)


def test_what_is_no_model():
    for given in ("ViT-B-32", 5, None):
        for function in (Model, clipq.quantize):
            with pytest.raises(QuantizationError, match=r"is not a model: give a module of open_clip"):
                function(given)
    with pytest.raises(QuantizationError, match=r"clipq.load\('ViT-B-32'\)"):
        clipq.quantize("ViT-B-32")


def test_a_tokenizer_by_name():
    named = Model(build("open_clip CLIP"), tokenizer="ViT-B-32")
    assert torch.equal(named.tokenizer(["a cat"]), whole().tokenizer(["a cat"]))
    assert Model(build("timm vision_transformer"), tokenizer="ViT-B-32").tokenizer_spec is None
    foreign = Model(build("transformers CLIP"), tokenizer="ViT-B-32")
    with pytest.raises(DataError, match="not all of this model's vocabulary, 0 to 99"):
        foreign.encode_text(["a cat"])


def test_a_siglip_without_its_head_has_no_image_embedding():
    import transformers

    module = build("transformers SigLIP")
    module.config.vision_config.vision_use_head = False
    headless = transformers.SiglipModel(module.config).eval()
    for model in (Model(headless), clipq.quantize(Model(headless))):
        with pytest.raises(QuantizationError, match="vision_use_head=False"):
            model.encode_image(torch.zeros(1, 3, 32, 32))
        assert model.encode_text(torch.full((1, 16), 5)).isfinite().all()
