"""`Model` where a module is expected: called, moved, put to `eval()`, asked for its scale, as open_clip's CLIP is."""

from __future__ import annotations

import pytest
import torch
from tiny_models import build, open_clip_config

import clipq
from clipq.errors import CheckpointError, ClipqError, QuantizationError
from clipq.methods import finishing
from clipq.models import Model


def parts(module: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(2, 95, (3, 16))
    tokens[:, -1] = 99 if hasattr(module, "config") else 49407
    return torch.randn(2, 3, 32, 32), tokens


def int8(name: str = "open_clip CLIP") -> Model:
    return Model(clipq.quantize(build(name)))


@pytest.mark.parametrize("output_dict", [True, False])
@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
@torch.no_grad()
def test_a_call_is_open_clips_forward(kind, output_dict):
    import open_clip

    module = getattr(open_clip, kind)(**open_clip_config(), init_logit_bias=-10.0, output_dict=output_dict).eval()
    pixels, tokens = parts(module)
    given = {"both": (pixels, tokens), "image": (pixels,), "text": (None, tokens), "none": ()}
    for inputs in given.values():
        theirs, ours = module(*inputs), Model(module)(*inputs)
        assert type(ours) is type(theirs)
        if output_dict:
            assert list(ours) == list(theirs)
            theirs, ours = theirs.values(), ours.values()
        for one, other in zip(theirs, ours, strict=True):
            assert one is other is None or torch.allclose(one, other, atol=1e-5)


def test_a_call_without_a_bias_has_no_place_for_one():
    model = int8("transformers CLIP")
    pixels, tokens = parts(model.module)
    images, texts, factor = model(pixels, tokens)
    assert torch.equal(images, model.encode_image(pixels, normalize=True))
    assert torch.equal(texts, model.encode_text(tokens, normalize=True))
    assert torch.equal(factor, model.logit_scale.exp())
    assert len(Model(build("transformers SigLIP"))(*parts(model.module))) == 4


def test_a_model_without_a_scale_has_none():
    model = Model(build("timm vision_transformer"))
    assert model.logit_scale is None
    images, texts, factor = model(image=torch.randn(2, 3, *model.host.pixel_shape(model.module)[1:]))
    assert len(images) == 2
    assert texts is factor is None


def test_it_is_for_inference():
    model = int8()
    assert model.eval() is model
    assert model.train(False) is model
    assert not model.training
    with pytest.raises(QuantizationError, match=r"'int8' cannot be trained.*precision='fp32'"):
        model.train()
    floats = Model(build("open_clip CLIP"))
    assert floats.train().module.training
    assert not floats.eval().module.training


def test_moving_it_keeps_what_it_computes():
    model = int8()
    pixels, tokens = parts(model.module)
    before = model(pixels, tokens)
    for moved in (model.to("cpu"), model.to(torch.device("cpu")), model.to(device="cpu", dtype=torch.float32)):
        assert moved is model
        assert all(map(torch.equal, before, model(pixels, tokens)))
    assert next(model.parameters()).device == model.device


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP"])
def test_what_follows_a_move_changes_nothing_on_the_same_kind_of_device(name):
    model = int8(name)
    pixels, tokens = parts(model.module)
    before = model(pixels, tokens)
    model.module.to(model.device)
    finishing.finish(model.module, model.host, model.recipe)
    assert all(map(torch.equal, before, model(pixels, tokens)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_float_model_takes_another_dtype(dtype):
    model = Model(build("open_clip CLIP"))
    pixels, tokens = parts(model.module)
    before = model(pixels, tokens)
    assert model.to(dtype).dtype == dtype
    assert model.precision_name == {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    for one, other in zip(before, model(pixels, tokens), strict=True):
        assert torch.allclose(one, other.float(), atol=0.05)
    assert model.to(torch.float32).dtype == torch.float32


def test_a_dtype_that_a_model_cannot_have_is_refused():
    with pytest.raises(QuantizationError, match=r"'int8' cannot be made torch.bfloat16.*fallback='bf16'"):
        int8().to(torch.bfloat16)
    with pytest.raises(QuantizationError, match=r"'fp32' cannot be made torch.float64"):
        Model(build("open_clip CLIP")).to(dtype=torch.float64)
    bf16 = Model(clipq.quantize(build("open_clip CLIP"), fallback="bf16"))
    assert bf16.to(torch.bfloat16).dtype == torch.bfloat16


def test_the_dtype_is_that_of_what_stays_float():
    assert int8().dtype == torch.float32
    assert Model(clipq.quantize(build("transformers CLIP text"), fallback="bf16")).dtype == torch.bfloat16


def test_tokenizers_of_the_hosts_are_taken_as_they_are():
    import open_clip

    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    model = Model(build("open_clip CLIP"), tokenizer=tokenizer)
    assert torch.equal(model.tokenizer(["a cat"]), tokenizer(["a cat"]))
    assert Model(build("timm vision_transformer"), tokenizer=tokenizer).tokenizer_spec is None
    with pytest.raises(CheckpointError, match="type function cannot be stored"):
        Model(build("open_clip CLIP"), tokenizer=lambda texts: texts)


def test_a_processor_brings_preprocessing_and_tokenizer():
    from PIL import Image
    from tiny_processors import clip_processor

    processor, picture = clip_processor(), Image.effect_noise((40, 30), 50).convert("RGB")
    model = Model(build("transformers CLIP"), processor=processor)
    theirs = processor(images=picture, text=["a cat"], return_tensors="pt", padding="max_length", max_length=16)
    assert torch.equal(model.preprocess(picture), theirs["pixel_values"][0])
    assert torch.equal(model.tokenizer(["a cat"]), theirs["input_ids"])
    alone = Model(build("transformers ViT"), processor=processor.image_processor)
    assert torch.equal(alone.preprocess(picture), theirs["pixel_values"][0])
    assert alone.tokenizer_spec is None
    with pytest.raises(ClipqError, match=r"CLIPTokenizer\w* has no image processor.*tokenizer="):
        Model(build("transformers CLIP"), processor=processor.tokenizer)
