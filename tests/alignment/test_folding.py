"""A folded model gives, to rounding, what the map makes of the model's own embeddings; so does its file."""

from __future__ import annotations

import pytest
import torch
from checkpoint_helpers import embeddings
from tiny_models import build, config

import clipq
from clipq import runtime
from clipq.alignment import Map, fold
from clipq.alignment.aligning import fitted, holds, takes_offset
from clipq.errors import CheckpointError, QuantizationError
from clipq.models import Model

FOLDED = {
    "open_clip CLIP": True,
    "open_clip CustomTextCLIP": True,
    "open_clip timm trunk": True,
    "open_clip timm SigLIP": True,
    "open_clip CoCa": False,
    "transformers CLIP": False,
    "transformers MetaCLIP 2": False,
}
"""The models that a map can be folded into, and whether their image towers take an offset, too: those of transformers
have no bias, and here project into a space that is wider than what they project.
"""
FLOAT_AND_INT4 = [("open_clip CLIP", None), ("open_clip timm trunk", "int4"), ("transformers CLIP", None)]
REFUSED = {
    "transformers ViT": "ends in a norm",
    "transformers DINOv2": "ends in a norm",
    "transformers SigLIP": "adds to what it reads",
    "timm vision_transformer": "ends in a norm",
    "open_clip ResNet": "its visual part is a ModifiedResNet",
}


def model(name, precision="int8"):
    own = Model(build(name), config=config(name))
    return own if precision is None else clipq.quantize(own, precision)


def random_map(own: Model, offset=True, out=None):
    """A turn and a little more, and an offset, as maps between models are."""
    rows = embeddings(own)[0]
    width, size = rows.shape[1], float(rows.double().square().mean().sqrt())
    both = max(out or width, width)
    turn = torch.linalg.qr(torch.randn(both, both, dtype=torch.float64)).Q[: out or width, :width]
    weight = turn + 0.2 * torch.randn(turn.shape, dtype=torch.float64) / width**0.5
    moved = 0.1 * size * torch.randn(len(weight), dtype=torch.float64)
    return Map(weight, moved if offset else None, {"method": "random"})


def near(found, expected):
    error = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert error.max() < 2e-4, error


def mapped(own: Model, found: Map, tower="image"):
    """What the folded model has to give."""
    maps = {one: found if one == tower else found.of_other_tower() for one in own.towers}
    return [maps[one](rows) for one, rows in zip(own.towers, embeddings(own), strict=True)]


@pytest.mark.parametrize(("name", "precision"), [*((name, "int8") for name in FOLDED), *FLOAT_AND_INT4])
def test_folded_is_mapped(name, precision, tmp_path):
    own = model(name, precision)
    before, found = embeddings(own), random_map(own, FOLDED[name])
    assert takes_offset(own, "image") == FOLDED[name]
    folded = fold(own, found)
    expected = mapped(own, found)
    for one, other in zip(embeddings(folded), expected, strict=True):
        near(one, other)
    assert all(one.equal(other) for one, other in zip(embeddings(own), before, strict=True)), "the model itself changed"
    assert folded.source["alignment"] == {"method": "random"}
    assert folded.fingerprint() != own.fingerprint()
    clipq.save(folded, tmp_path / "folded.safetensors")
    again = clipq.load(tmp_path / "folded.safetensors", precision or "fp32")
    for one, other in zip(embeddings(again), embeddings(folded), strict=True):
        assert one.equal(other)
    assert again.source["alignment"] == {"method": "random"}


def test_a_norm_holds_the_offset_where_the_projection_has_no_bias(tmp_path):
    """As in CLIPs of the usual sizes, whose embeddings are no wider than their blocks."""
    from transformers import CLIPConfig, CLIPModel

    settings = build("transformers CLIP").config.to_dict()
    own = clipq.quantize(Model(CLIPModel(CLIPConfig.from_dict({**settings, "projection_dim": 32})).eval()), "int8")
    assert takes_offset(own, "image") and takes_offset(own, "text")
    found = random_map(own)
    folded = fold(own, found)
    clipq.save(folded, tmp_path / "folded.safetensors")
    for one, other in zip(embeddings(clipq.load(tmp_path / "folded.safetensors")), mapped(own, found), strict=True):
        near(one, other)
    bias = folded.module.vision_model.post_layernorm.bias
    assert not bias.equal(own.module.vision_model.post_layernorm.bias)


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP", "open_clip timm trunk"])
def test_the_text_tower_can_be_the_one_that_was_fitted(name):
    own = model(name)
    found = random_map(own, takes_offset(own, "text"))
    for one, other in zip(embeddings(fold(own, found, "text")), mapped(own, found, "text"), strict=True):
        near(one, other)


@pytest.mark.parametrize(
    ("name", "out"), [("open_clip CLIP", 64), ("transformers CLIP", 24), ("open_clip timm trunk", 24)]
)
def test_another_width(name, out, tmp_path):
    own = model(name)
    found = random_map(own, offset=False, out=out)
    folded = fold(own, found)
    clipq.save(folded, tmp_path / "folded.safetensors")
    again = clipq.load(tmp_path / "folded.safetensors")
    for one, other in zip(embeddings(again), mapped(own, found), strict=True):
        assert one.shape[1] == out
        near(one, other)


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP"])
def test_the_runtime_reads_it(name, tmp_path):
    own = model(name)
    folded = fold(own, random_map(own, takes_offset(own, "image")))
    clipq.save(folded, tmp_path / "folded.safetensors")
    try:
        light = runtime.load(tmp_path / "folded.safetensors", threads=1)
    except CheckpointError as error:
        pytest.skip(f"the native library is not there: {error}")
    pixels = torch.randn(3, *own.host.pixel_shape(own.module))
    near(torch.from_numpy(light.encode_image(pixels.numpy())), folded.encode_image(pixels))


@pytest.mark.parametrize("name", REFUSED)
def test_towers_that_can_hold_no_map(name):
    own = model(name, None)
    before = embeddings(own)
    with pytest.raises(QuantizationError, match=REFUSED[name]):
        fold(own, random_map(own))
    assert not takes_offset(own, "image")
    assert all(one.equal(other) for one, other in zip(embeddings(own), before, strict=True))


def test_an_offset_where_none_can_be():
    own = model("open_clip CoCa")
    with pytest.raises(QuantizationError, match="can hold no offset"):
        fold(own, random_map(own, offset=True))


def test_an_offset_that_would_drown_all_else():
    own = model("open_clip CLIP")
    found = random_map(own)
    assert holds(own, "image", found)
    far = Map(found.weight, 100 * found.offset)
    assert not holds(own, "image", far)
    with pytest.raises(QuantizationError, match="can hold no offset"):
        fold(own, far)
    rows = torch.randn(200, 48)
    assert fitted(own, "image", rows, far(rows)).offset is None


def test_no_map_is_no_work():
    own = model("open_clip CLIP")
    assert fold(own, Map(torch.eye(48).double())) is own


def test_a_map_of_one_tower_leaves_the_other():
    own = model("open_clip CLIP")
    weight = random_map(own).weight
    folded = fold(own, Map(weight, None, {}, one_tower=True))
    for (one, other), same in zip(zip(embeddings(own), embeddings(folded), strict=True), (False, True), strict=True):
        assert one.equal(other) == same


def test_tensors_that_stay_are_shared():
    own = model("open_clip CLIP")
    folded = fold(own, random_map(own))
    block, other = (one.module.visual.transformer.resblocks[0].mlp.c_fc for one in (own, folded))
    assert block.qweight.data_ptr() == other.qweight.data_ptr() and block is not other


def test_a_half_precision_tower_stays_one():
    own = clipq.quantize(Model(build("open_clip CLIP"), config=config("open_clip CLIP")), "int8", fallback="fp16")
    found = random_map(own, offset=False)
    folded = fold(own, found)
    assert folded.module.visual.proj.dtype == torch.float16
    assert torch.cosine_similarity(embeddings(folded)[0], mapped(own, found)[0]).min() > 0.9999
