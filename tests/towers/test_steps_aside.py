"""A tower steps aside, or is found anew, where somebody wants what is inside or has changed it."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import build
from torch import nn
from tower_helpers import BOUNDS, CAUSAL, HOST, ONE, by_layers, by_model, how, model, pixels, tokens

from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.methods.quantization import quantize
from clipq.models import Model

SPOTS = {
    "tower": lambda m: m.visual,
    "stack": lambda m: m.visual.transformer,
    "block": lambda m: m.visual.transformer.resblocks[0],
    "attention": lambda m: m.visual.transformer.resblocks[1].attn,
    "linear": lambda m: m.visual.transformer.resblocks[0].mlp.c_fc,
    "norm": lambda m: m.visual.ln_post,
}


@pytest.mark.parametrize("spot", SPOTS)
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_hook_sees_the_hosts_own_forward(spot, kind):
    of = model("open_clip CLIP")
    x = pixels(of)
    expected, shapes = of.encode_image(x), []
    seen = lambda _module, given, *_rest: shapes.append(given[0].shape)  # noqa: E731
    handle = getattr(SPOTS[spot](of.module), kind)(seen)
    whole = spot == "tower"  # whose own hooks are around its call, not inside
    assert (of.host.tower(of.module, "image") is None) != whole
    assert of.host.tower(of.module, "text") is not None
    assert torch.allclose(of.encode_image(x), expected, atol=1e-5)
    assert [len(shape) for shape in shapes] == [4 if spot == "tower" else 3]
    handle.remove()
    assert of.host.tower(of.module, "image") is not None


def test_a_hook_on_every_module_counts_too():
    of, calls = model("open_clip CLIP"), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: calls.append(type(m).__name__))
    of.encode_image(pixels(of))
    handle.remove()
    assert calls.count("ResidualAttentionBlock") == 2


def test_a_forward_of_ones_own_runs():
    of = model("transformers CLIP")
    x = pixels(of)
    layer = of.module.vision_model.encoder.layers[0]
    of.encode_image(x)
    layer.forward = lambda hidden_states, *_args, **_kwargs: torch.zeros_like(hidden_states)
    assert torch.allclose(of.encode_image(x), by_layers(of, x), atol=1e-6)
    assert of.host.tower(of.module, "image") is None


def test_a_hook_on_a_one_tower_model_sees_its_call():
    of, seen = model("transformers CLIP text, projected"), []
    of.module.register_forward_hook(lambda _module, _given, output: seen.append(output.text_embeds))
    assert torch.equal(of.encode_text(tokens(of)), seen[0])
    assert how(of, "text") == CAUSAL


def test_a_siglip_that_does_not_pool_gives_its_tokens():
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    module = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes, vision_use_head=False))
    pixels = torch.randn(2, 3, 32, 32)
    expected = module.eval()(pixels).last_hidden_state
    found = quantize(module, "fp32")(pixels)
    assert found.pooler_output is None
    assert torch.allclose(found.last_hidden_state, expected, atol=1e-5)


def test_another_scale_or_mask_is_the_hosts():
    scaled, masked = build("transformers CLIP"), build("open_clip CLIP")
    scaled.vision_model.encoder.layers[0].self_attn.scale = 1.0
    masked.attn_mask.fill_(0)
    for module, known in ((scaled, (HOST, CAUSAL)), (masked, (ONE, HOST))):
        of = quantize(Model(module), "fp32")
        assert (how(of, "image"), how(of, "text")) == known


def test_training_mode_is_the_hosts():
    of = model("open_clip drops and scales")
    of.module.train()
    assert (how(of, "image"), how(of, "text")) == (HOST, HOST)
    of.module.eval()
    assert (how(of, "image"), how(of, "text")) == (ONE, CAUSAL)


@torch.inference_mode()
def test_a_range_shared_by_all_rows_needs_all_rows():
    per_tensor = Scheme("per-tensor", QuantSpec(True, "channel"), QuantSpec(False, "tensor"))
    of = model("open_clip CLIP", per_tensor)
    assert (how(of, "image"), how(of, "text")) == (HOST, HOST)
    x = pixels(of)
    assert torch.equal(of.encode_image(x), by_layers(of, x))


def test_what_is_replaced_later_is_seen():
    of = model("open_clip CLIP")
    x, ids = pixels(of), tokens(of)
    before = of.encode_image(x), of.encode_text(ids)
    blocks = of.module.visual.transformer.resblocks
    blocks[0].mlp.c_fc = nn.Linear(64, 256)
    of.module.token_embedding.weight = nn.Parameter(torch.randn(49408, 32))
    after = of.encode_image(x), of.encode_text(ids)
    assert all(not torch.allclose(one, other, atol=1e-3) for one, other in zip(before, after, strict=True))
    quantize(of.module)
    assert [how(of, "image"), how(of, "text")] == [ONE, CAUSAL]
    for given in (x, ids):
        expected = by_layers(of, given)
        assert (by_model(of, given) - expected).norm() / expected.norm() < BOUNDS["int8"]
    blocks[1] = nn.Identity()
    assert how(of, "image") == HOST


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP"])
def test_a_copy_runs_its_own_modules(name):
    of = model(name)
    x = pixels(of)
    expected = of.encode_image(x)
    other = copy.deepcopy(of)
    nn.init.zeros_(of.module.visual.proj if hasattr(of.module, "visual") else of.module.visual_projection.weight)
    assert torch.equal(other.encode_image(x), expected)
    assert not of.encode_image(x).any()


def test_weights_loaded_later_are_used():
    of, other = model("open_clip CLIP"), build("open_clip CLIP")
    x = pixels(of)
    of.encode_image(x)
    of.module.load_state_dict(other.state_dict())
    assert torch.allclose(of.encode_image(x), by_layers(Model(other), x), atol=1e-5)
