"""Every host: the quantized model is the host's own, completely covered, and close to what it was."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import BUILDERS, build
from torch import nn

from clipq.errors import ClipqError, ClipqWarning, QuantizationError, UnknownNameError
from clipq.hosts import HOSTS, find_host, host_named
from clipq.methods.coverage import coverage
from clipq.methods.quantization import quantize
from clipq.modules.state import slots
from clipq.towers.blocks import find_blocks

PARTLY = ("open_clip ConvNeXt", "open_clip ResNet")  # towers without transformer blocks
WHOLE = [name for name in BUILDERS if name not in PARTLY]


def inputs(module: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and texts that end, as CLIP's do, in the token with the largest id."""
    host = find_host(module)
    tokens = torch.randint(2, 95, (4, host.context_length(module) or 1))
    tokens[:, -1] = 99 if host.name == "transformers" else 49407
    return torch.randn(4, *host.pixel_shape(module)), tokens


def embed(module: nn.Module) -> list[torch.Tensor]:
    host, (pixels, tokens) = find_host(module), inputs(module)
    with torch.inference_mode():
        found = [host.encode_image(module, pixels)]
        return [*found, host.encode_text(module, tokens)] if "text" in host.towers(module) else found


def similarity(one: torch.Tensor, other: torch.Tensor) -> float:
    return torch.cosine_similarity(one.float(), other.float()).min().item()


@pytest.mark.parametrize("name", WHOLE)
def test_int8_covers_all_block_weights_and_stays_close(name):
    module = build(name)
    torch.manual_seed(1)
    before = embed(module)
    report = coverage(quantize(module))
    torch.manual_seed(1)
    for exact, approximate in zip(before, embed(module), strict=True):
        assert similarity(exact, approximate) > 0.999
    for tower in report.towers.values():
        assert tower.block_share == 1.0
        assert tower.block_weights > 0
        assert all(left.intended for left in tower.left_float)
        assert 0.5 < tower.mac_share < 1


@pytest.mark.parametrize("name", WHOLE)
def test_the_recognised_blocks_are_all_blocks(name):
    module = build(name)
    host = find_host(module)
    blocks = list(find_blocks(module, host.blocks))
    matrices = {key for key, slot in slots(module).items() if slot.tensor.ndim == 2}
    for block in blocks:
        assert set(block.weights()) <= matrices
        assert block.part("ln_1").normalized_shape == block.part("ln_2").normalized_shape
        assert "GELU" in type(block.part("act")).__name__
    towers = {host.tower_of(module, block.name) for block in blocks}
    assert towers >= set(host.towers(module))


@pytest.mark.parametrize("name", PARTLY)
def test_towers_without_blocks_get_their_linears_and_say_what_stays_float(name):
    module = build(name)
    before = embed(copy.deepcopy(module))
    with pytest.warns(ClipqWarning, match=r"of the image tower's matrix weights stay float: visual\..*Conv2d"):
        quantize(module)
    report = coverage(module)
    assert report.towers["image"].quantized_weights > 0
    assert report.towers["text"].block_share == 1.0
    assert "Conv2d" in str(report)
    torch.manual_seed(0)
    assert all(torch.isfinite(x).all() for x in embed(module))
    assert len(before) == 2


def test_siglip2_of_any_resolution_takes_patches():
    import transformers

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 100, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.Siglip2Config(text_config=text, vision_config={**sizes, "num_patches": 16, "patch_size": 8})
    module = transformers.Siglip2Model(config).eval()
    pixels = {
        "pixel_values": torch.randn(2, 16, 192),
        "pixel_attention_mask": torch.ones(2, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4], [2, 8]]),
    }
    host = find_host(module)
    with torch.inference_mode():
        before = host.encode_image(module, pixels)
        quantize(module)
        assert similarity(before, host.encode_image(module, pixels)) > 0.999
    report = coverage(module)
    assert report.block_share == 1.0
    assert report.towers["image"].macs is None  # no one size to count for


def to_transformers(module: nn.Module) -> nn.Module:
    """The same CLIP, weight for weight, as a transformers model."""
    import transformers

    visual, width = module.visual, module.visual.conv1.out_channels
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 49406, "eos_token_id": 49407, "max_position_embeddings": 16, "vocab_size": 49408}
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(
            vision_config={**vision, "image_size": 32, "patch_size": 8},
            text_config={**text, **ends},
            projection_dim=48,
        )
    ).eval()
    state = {"logit_scale": module.logit_scale, "visual_projection.weight": visual.proj.T}
    state |= {"text_projection.weight": module.text_projection.T}
    state |= {
        "vision_model.embeddings.class_embedding": visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": visual.positional_embedding,
        "text_model.embeddings.token_embedding.weight": module.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": module.positional_embedding,
    }
    norms = {"vision_model.pre_layrnorm": visual.ln_pre, "vision_model.post_layernorm": visual.ln_post}
    for prefix, norm in {**norms, "text_model.final_layer_norm": module.ln_final}.items():
        state |= {f"{prefix}.weight": norm.weight, f"{prefix}.bias": norm.bias}
    for tower, blocks in (("vision", visual.transformer.resblocks), ("text", module.transformer.resblocks)):
        for i, block in enumerate(blocks):
            state |= {f"{tower}_model.encoder.layers.{i}.{k}": v for k, v in block_to_transformers(block).items()}
    clip.load_state_dict(state)
    return clip


def block_to_transformers(block: nn.Module) -> dict[str, torch.Tensor]:
    parts = {
        "layer_norm1": block.ln_1,
        "layer_norm2": block.ln_2,
        "mlp.fc1": block.mlp.c_fc,
        "mlp.fc2": block.mlp.c_proj,
    }
    parts["self_attn.out_proj"] = block.attn.out_proj
    state = {f"{name}.{kind}": getattr(part, kind) for name, part in parts.items() for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        for name, part in zip("qkv", getattr(block.attn, f"in_proj_{kind}").chunk(3), strict=True):
            state[f"self_attn.{name}_proj.{kind}"] = part
    return state


def test_the_same_weights_give_the_same_embeddings_through_either_host():
    ours = build("open_clip CLIP QuickGELU")
    theirs = to_transformers(ours)
    pixels, tokens = inputs(ours)
    for precision in ("fp32", "int8", "int8-weight-only"):
        pair = [quantize(copy.deepcopy(module), precision) for module in (ours, theirs)]
        with torch.inference_mode():
            for encode, x in (("encode_image", pixels), ("encode_text", tokens)):
                one, other = (getattr(find_host(module), encode)(module, x) for module in pair)
                # Rounding may tip a value over the edge of an int8 step, which moves an embedding a little.
                bound = 1e-5 if precision != "int8" else 2e-3
                assert (one - other).norm() / one.norm() < bound, (precision, encode)


def test_quantized_weights_are_the_same_through_either_host():
    ours = build("open_clip CLIP QuickGELU")
    theirs = quantize(to_transformers(ours))
    fused = slots(quantize(ours))["visual.transformer.resblocks.0.attn.in_proj_weight"].tensor
    name = "vision_model.encoder.layers.0.self_attn.{}_proj.weight"
    assert torch.equal(fused, torch.cat([slots(theirs)[name.format(part)].tensor for part in "qkv"]))


@pytest.mark.parametrize("name", WHOLE)
def test_a_rebuilt_architecture_has_the_same_tensors_and_no_weights(name):
    module = build(name)
    host = find_host(module)
    if host.name == "open_clip":
        with pytest.raises(ClipqError, match="none of open_clip's named ones"):
            host.config(module)
        return
    empty = host.build(host.config(module))
    shapes = [{key: slot.tensor.shape for key, slot in slots(m).items()} for m in (module, empty)]
    assert shapes[0] == shapes[1]
    assert all(parameter.is_meta for parameter in empty.parameters())


@pytest.mark.parametrize("arch", ["ViT-B-32", "ViT-B-32-quickgelu"])
def test_a_named_open_clip_architecture_is_recognised_with_its_activation(arch):
    import open_clip

    host = HOSTS["open_clip"]
    config = open_clip.get_model_config(arch)
    assert host.config(host.build(config)) == {"arch": arch, **config}


def test_a_timm_model_with_forgotten_arguments_is_refused():
    import timm

    module = timm.create_model("test_vit", num_classes=0, embed_dim=32)
    with pytest.raises(ClipqError, match="not a plain test_vit"):
        find_host(module).config(module)


def test_what_clipq_does_not_know_is_refused_by_name():
    with pytest.raises(QuantizationError, match=r"torch\.nn\.modules\.linear\.Linear is not a model clipq knows"):
        find_host(nn.Linear(2, 2))
    with pytest.raises(UnknownNameError, match="Did you mean 'transformers'"):
        host_named("transformer")


def test_one_tower_models_refuse_the_other_tower():
    for name in ("transformers ViT", "timm vision_transformer"):
        module = build(name)
        with pytest.raises(QuantizationError, match="no text tower"):
            find_host(module).encode_text(module, torch.zeros(1, 4, dtype=torch.long))
