"""What every peer gets: the same model, the same inputs."""

from __future__ import annotations

import pytest
import torch
from peer_helpers import tiny_model
from peers import torch_peers, workspace
from tiny_models import build
from torch import nn

import clipq
from clipq.errors import ClipqError


def test_only_models_of_open_clip_can_be_exported(tmp_path):
    file = clipq.save(build("transformers CLIP"), tmp_path / "other.safetensors")
    with pytest.raises(ClipqError, match="fp32 open_clip models"):
        workspace.open_model("", str(file))


def test_the_plain_module_is_the_model_that_was_given(place):
    model, plain = tiny_model().module, workspace.plain_module(place)
    tokens = torch.from_numpy(place.inputs("captions"))
    pixels = torch.from_numpy(place.inputs("images"))
    assert {type(part).__module__.split(".")[0] for part in plain.modules()} <= {"open_clip", "torch"}
    with torch.inference_mode():
        torch.testing.assert_close(plain.encode_text(tokens), model.encode_text(tokens))
        torch.testing.assert_close(plain.encode_image(pixels), model.encode_image(pixels))


def test_attention_made_of_linears_is_the_same_attention(place):
    plain, rewritten = workspace.plain_module(place), workspace.plain_module(place)
    torch_peers.with_linear_attention(rewritten)
    assert not [part for part in rewritten.modules() if isinstance(part, nn.MultiheadAttention)]
    tokens, pixels = (torch.from_numpy(place.inputs(kind)) for kind in ("captions", "images"))
    with torch.inference_mode():
        torch.testing.assert_close(rewritten.encode_text(tokens), plain.encode_text(tokens))
        torch.testing.assert_close(rewritten.encode_image(pixels), plain.encode_image(pixels))


def test_captions_have_6_to_40_tokens_and_full_texts_have_all():
    from open_clip import get_tokenizer

    texts = workspace.texts(32, 8)
    found = {kind: workspace.lengths(get_tokenizer("ViT-B-32")(texts[kind])) for kind in ("captions", "full")}
    assert (found["captions"]["min"], found["captions"]["max"]) == (6, 40)
    assert 8 < found["captions"]["mean"] < 20
    assert found["full"] == {"min": 77, "mean": 77, "max": 77}
    for kind in found:
        assert len(set(texts[kind])) == 32, "equal prompts would be encoded once by whoever notices"


def test_the_pictures_of_a_folder_are_used(tmp_path):
    from PIL import Image

    for value in (0, 255):
        Image.new("L", (8, 8), value).save(tmp_path / f"{value}.png")
    found = [picture.getpixel((0, 0)) for picture in workspace.pictures(tmp_path, 3)]
    assert {*found} == {(0, 0, 0), (255, 255, 255)} and found[2] == found[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipqError, match="no pictures"):
        list(workspace.pictures(tmp_path / "empty", 1))
