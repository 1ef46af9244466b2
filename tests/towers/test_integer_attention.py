"""Attention in whole numbers: where it is taken, how far it is from floats, and that files keep the choice."""

from __future__ import annotations

import copy
from dataclasses import replace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from fused_helpers import by_reference, fused, keeps, rms, rows_for, tower, use
from tiny_models import open_clip_config

import clipq
from clipq.arithmetic.precisions import resolve
from clipq.errors import SchemeError, UnknownNameError
from clipq.native import library

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")
INT8, FLOAT = resolve("int8"), replace(resolve("int8"), attention="float")
LONG, SHORT = [128, 300, 1, 729], [1, 50, 127]


def kernel_towers(kind: str, side: str = "image") -> dict:
    return {one: tower(kind, side, replace(INT8, attention=one)) for one in ("float", "int8")}


@pytest.mark.parametrize("path", library.supported_paths())
@pytest.mark.parametrize(("kind", "side"), [("open_clip CLIP", "image"), ("open_clip CLIP", "text")])
def test_it_is_close_to_floats_and_taken_by_long_sequences_alone(kind, side, path):
    found = kernel_towers(kind, side)
    for lengths, alike in ((LONG, False), (SHORT, True)):
        x, sequences = rows_for(found["int8"], lengths)
        for one in found.values():
            use(one, f"native/{path}")
        integers, floats = (fused(found[kind], x, sequences) for kind in ("int8", "float"))
        assert torch.equal(integers, floats) == alike
        step = rms(floats - by_reference(found["float"], x, sequences))
        assert rms(integers - floats) < 0.02 * rms(floats - x) + 2 * step


@pytest.mark.parametrize("path", library.supported_paths())
@pytest.mark.parametrize("side", ["image", "text"])
def test_kept_rows_have_the_bits_of_all_rows(side, path):
    of = kernel_towers("open_clip CLIP", side)["int8"]
    use(of, f"native/{path}")
    x, sequences = rows_for(of, [150, 3, 200])
    everything = fused(of, x, sequences)
    for keep in keeps(sequences):
        assert torch.equal(fused(of, x, sequences, keep), everything if keep is None else everything[keep])


def test_sequences_do_not_see_each_other():
    of = kernel_towers("open_clip CLIP")["int8"]
    x, sequences = rows_for(of, [150, 200, 130])
    everything = fused(of, x, sequences)
    alone, one = rows_for(of, [200])
    alone = x[150:350].clone()
    assert torch.equal(fused(of, alone, one), everything[150:350])
    x[150:350] = torch.nan
    again = fused(of, x, sequences)
    assert torch.equal(again[:150], everything[:150]) and torch.equal(again[350:], everything[350:])
    assert again[150:350].isnan().all()


@pytest.fixture(scope="module")
def models() -> dict[str, clipq.Model]:
    """A picture has 257 tokens, a text 16."""
    torch.manual_seed(0)
    config = open_clip_config(vision_image_size=64, vision_patch_size=4)
    module = open_clip.CLIP(**config).eval()
    schemes = {"float": FLOAT, "int8": INT8}
    return {
        one: clipq.quantize(clipq.Model(copy.deepcopy(module), config=config), scheme)
        for one, scheme in schemes.items()
    }


def test_embeddings_hardly_move(models):
    pixels, ids = torch.randn(8, 3, 64, 64), torch.randint(2, 90, (8, 16))
    floats, integers = (models[one].encode_image(pixels) for one in ("float", "int8"))
    assert not torch.equal(floats, integers)
    assert F.cosine_similarity(floats, integers).min() > 0.9995
    assert torch.equal(*(models[one].encode_text(ids) for one in ("float", "int8")))


@pytest.mark.parametrize("attention", ["float", "int8"])
def test_a_file_keeps_the_choice(models, attention, tmp_path):
    pixels = torch.randn(4, 3, 64, 64)
    clipq.save(models[attention], tmp_path / "m.safetensors")
    again = clipq.load(tmp_path / "m.safetensors")
    assert again.recipe.schemes["image"].attention == attention
    assert torch.equal(again.encode_image(pixels), models[attention].encode_image(pixels))
    torch_free = clipq.runtime.load(tmp_path / "m.safetensors")
    found = torch.from_numpy(torch_free.encode_image(pixels.numpy()))
    assert F.cosine_similarity(found, again.encode_image(pixels)).min() > 0.999999


def test_what_a_scheme_says():
    assert "attention" not in FLOAT.to_dict() and INT8.to_dict()["attention"] == "int8"
    assert clipq.Scheme.from_dict(FLOAT.to_dict()) == FLOAT
    with pytest.raises(UnknownNameError, match="int8"):
        replace(INT8, attention="int4")
    with pytest.raises((SchemeError, UnknownNameError)):
        clipq.Scheme.from_dict({**INT8.to_dict(), "attention": 8})
