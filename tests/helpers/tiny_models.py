"""Small random models of every host and family: real classes, a few thousand weights, no network."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

_VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
_HF_VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_HF_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 16,
    "bos_token_id": 98,
    "eos_token_id": 99,
    "pad_token_id": 1,
}


def open_clip_config(**options: object) -> dict:
    """An open_clip `model_cfg`; options go to the top level, or with "vision_"/"text_" in front to that tower."""
    config = {"embed_dim": 48, "vision_cfg": dict(_VISION), "text_cfg": dict(_TEXT)}
    for key, value in options.items():
        tower, _, rest = key.partition("_")
        target = config[f"{tower}_cfg"] if tower in ("vision", "text") else config
        target[rest if tower in ("vision", "text") else key] = value
    return config


def _open_clip(kind: str = "CLIP", **options: object) -> nn.Module:
    import open_clip

    return getattr(open_clip, kind)(**open_clip_config(**options))


def _timm_trunk(name: str) -> tuple[str, dict]:
    trunk = {"model_name": name, "model_pretrained": False, "pool": "", "proj": "linear"}
    return "CustomTextCLIP", {f"vision_timm_{key}": value for key, value in trunk.items()}


def _timm_head(name: str) -> dict:
    """A trunk that pools and projects by itself."""
    kind, trunk = _timm_trunk(name)
    return {"kind": kind, **trunk, "vision_timm_pool": "token", "vision_timm_proj": None, "vision_image_size": 160}


_COCA = {
    "multimodal_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    "text_embed_cls": True,
    "text_output_tokens": True,
    "vision_attentional_pool": True,
    "vision_attn_pooler_heads": 2,
    "vision_output_tokens": True,
}
_QK_NORM = {"vision_qk_norm": True, "vision_scale_heads": True, "vision_ls_init_value": 0.1}
_INNER = {"vision_scale_attn_inner": True, "vision_scale_attn": True, "vision_scale_fc": True}

OPEN_CLIP: dict[str, tuple[str, dict]] = {
    "open_clip CLIP": ("CLIP", {}),
    "open_clip CLIP QuickGELU": ("CLIP", {"quick_gelu": True}),
    "open_clip CustomTextCLIP": ("CustomTextCLIP", {}),
    "open_clip custom blocks": ("CLIP", {"vision_block_type": "custom", **_QK_NORM}),
    "open_clip inner norms": ("CLIP", {"vision_block_type": "custom", **_INNER}),
    "open_clip timm trunk": _timm_trunk("test_vit"),
    "open_clip timm SigLIP": _timm_trunk("test_vit2"),
    "open_clip ConvNeXt": _timm_trunk("test_convnext"),
    "open_clip ResNet": ("CLIP", {"vision_layers": (1, 1, 1, 1), "vision_width": 32}),
    "open_clip CoCa": ("CoCa", _COCA),
}
"""The class of open_clip, and the options of `open_clip_config`."""


def _transformers(model: str, config: str, **options: object) -> nn.Module:
    import transformers

    return getattr(transformers, model)(getattr(transformers, config)(**options))


def _two_towers(family: str, **vision: object) -> nn.Module:
    text_config = {**_HF_TEXT, "projection_size": _HF_VISION["hidden_size"]}  # SigLIP's towers end in one width
    vision_config = {**_HF_VISION, **vision}
    return _transformers(f"{family}Model", f"{family}Config", text_config=text_config, vision_config=vision_config)


def _timm(name: str, **options: object) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, **options)


_REGISTERS = {"num_register_tokens": 2, "key_bias": False}
BUILDERS: dict[str, Callable[[], nn.Module]] = {
    **{name: partial(_open_clip, kind, **options) for name, (kind, options) in OPEN_CLIP.items()},
    "transformers CLIP": lambda: _two_towers("CLIP"),
    "transformers SigLIP": lambda: _two_towers("Siglip"),
    "transformers ViT": lambda: _transformers("ViTModel", "ViTConfig", **_HF_VISION),
    "transformers DeiT": lambda: _transformers("DeiTModel", "DeiTConfig", **_HF_VISION),
    "transformers DINOv2": lambda: _transformers("Dinov2Model", "Dinov2Config", **_HF_VISION),
    "transformers DINOv3": lambda: _transformers("DINOv3ViTModel", "DINOv3ViTConfig", **_HF_VISION, **_REGISTERS),
    "transformers MetaCLIP 2": lambda: _two_towers("MetaClip2"),
    "timm vision_transformer": lambda: _timm("test_vit", num_classes=0),
}


_DROPS = {"vision_patch_dropout": 0.5, "vision_no_ln_pre": True, "vision_ls_init_value": 0.1}
_SIGLIP_TEXT = {"text_no_causal_mask": True, "text_pool_type": "last", "text_proj_bias": True}
_ONE_TOWER = {"projection_dim": 48}


_SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}


def _eva(name: str, **options: object) -> nn.Module:
    sizes = {"img_size": 64, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 0}
    return _timm(name, **{**sizes, **options})


def _rms_norm(*arguments: object, **options: object) -> nn.Module:
    from timm.layers import RmsNorm

    return RmsNorm(*arguments, **options)


def _masking_padding(module: nn.Module) -> nn.Module:
    module.text.use_pad_mask = True  # no configuration says it yet
    return module


def _seeing_class(module: nn.Module) -> nn.Module:
    module.text.correct_cls_mask = True  # nor this
    return module


VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "open_clip average": partial(_open_clip, vision_pool_type="avg", vision_final_ln_after_pool=True),
    "open_clip average of normed": partial(_open_clip, vision_pool_type="avg"),
    "open_clip drops and scales": partial(_open_clip, **_DROPS),
    "open_clip plain custom blocks": partial(_open_clip, vision_block_type="custom", text_block_type="custom"),
    "open_clip scaled heads": partial(_open_clip, vision_scale_heads=True),
    "open_clip last token, both ways": partial(_open_clip, "CustomTextCLIP", **_SIGLIP_TEXT),
    "open_clip end of text": partial(_open_clip, "CustomTextCLIP", text_pool_type="eos", text_eos_id=49407),
    "open_clip end of text, CLIP": partial(_open_clip, text_pool_type="eos", text_eos_id=49407),
    "open_clip last token": partial(_open_clip, "CustomTextCLIP", text_pool_type="last", text_proj_type="none"),
    "open_clip first token": partial(_open_clip, "CustomTextCLIP", text_pool_type="first"),
    "open_clip mask over padding": lambda: _masking_padding(_open_clip("CustomTextCLIP", text_no_causal_mask=True)),
    "open_clip class token in the text": partial(_open_clip, "CustomTextCLIP", text_embed_cls=True),
    "open_clip class token, seen": lambda: _seeing_class(_open_clip("CustomTextCLIP", text_embed_cls=True)),
    "open_clip timm head": partial(_open_clip, **_timm_head("test_vit")),
    "open_clip normed queries in the text": partial(_open_clip, "CustomTextCLIP", text_qk_norm=True),
    "transformers CLIP, old end": lambda: _transformers(
        "CLIPModel", "CLIPConfig", text_config={**_HF_TEXT, "eos_token_id": 2}, vision_config=_HF_VISION
    ),
    "transformers CLIP image": lambda: _transformers("CLIPVisionModel", "CLIPVisionConfig", **_HF_VISION),
    "transformers CLIP image, projected": lambda: _transformers(
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", **_HF_VISION, **_ONE_TOWER
    ),
    "transformers CLIP text": lambda: _transformers("CLIPTextModel", "CLIPTextConfig", **_HF_TEXT),
    "transformers CLIP text, projected": lambda: _transformers(
        "CLIPTextModelWithProjection", "CLIPTextConfig", **_HF_TEXT, **_ONE_TOWER
    ),
    "transformers SigLIP image": lambda: _transformers("SiglipVisionModel", "SiglipVisionConfig", **_HF_VISION),
    "transformers SigLIP text": lambda: _transformers("SiglipTextModel", "SiglipTextConfig", **_HF_TEXT),
    "transformers SigLIP 2 text": lambda: _transformers("Siglip2TextModel", "Siglip2TextConfig", **_HF_TEXT),
    "transformers ViT classifier": lambda: _transformers("ViTForImageClassification", "ViTConfig", **_HF_VISION),
    "transformers DINOv2 SwiGLU": lambda: _transformers(
        "Dinov2Model", "Dinov2Config", **_HF_VISION, use_swiglu_ffn=True
    ),
    "timm average": partial(_timm, "test_vit", num_classes=0, global_pool="avg"),
    "timm attention pool": partial(_timm, "test_vit", num_classes=0, global_pool="map"),
    "timm no class token": partial(_timm, "test_vit", num_classes=0, global_pool="avg", class_token=False),
    "timm registers": partial(_timm, "test_vit3", num_classes=0),
    "timm scales": partial(_timm, "test_vit", init_values=0.1, pre_norm=True, dynamic_img_size=True),
    "timm positions without class": partial(_timm, "test_vit", no_embed_class=True, reg_tokens=2),
    "timm normed queries": partial(_timm, "test_vit", qk_norm=True),
    "timm gates": partial(_timm, "test_vit", scale_attn_norm=True, scale_mlp_norm=True),
    "timm RMSNorm": partial(_timm, "test_vit", num_classes=0, norm_layer=_rms_norm, qk_norm=True),
    "timm EVA02": partial(_eva, "eva02_base_patch16_clip_224"),
    "timm EVA02, packed": partial(_eva, "eva02_base_patch16_clip_224", scale_mlp=False, qkv_fused=True, qkv_bias=False),
    "timm EVA02, not turned": partial(_eva, "eva02_base_patch16_clip_224", use_rot_pos_emb=False),
    "timm EVA, biases apart": partial(_eva, "eva02_base_patch16_clip_224", qkv_fused=True),
    "timm EVA, post-norm": partial(_eva, "eva02_enormous_patch14_clip_224", img_size=56),
    "timm PE-Core": partial(_eva, "vit_pe_core_base_patch16_224", attn_pool_num_heads=2),
    "timm DINOv3": partial(_eva, "vit_small_patch16_dinov3", global_pool="token"),
    "timm DINOv3, average": partial(_eva, "vit_small_patch16_dinov3"),
    "timm DINOv3, gated": partial(_eva, "vit_small_plus_patch16_dinov3", global_pool="token", norm_layer=_rms_norm),
    "timm RoPE, mixed": partial(_eva, "vit_small_patch16_rope_mixed_224"),
    "timm RoPE, axial": partial(_eva, "vit_small_patch16_rope_224", qk_norm=True),
    "transformers DINOv3 gated": lambda: _transformers(
        "DINOv3ViTModel", "DINOv3ViTConfig", **_HF_VISION, use_gated_mlp=True, hidden_act="silu"
    ),
    "transformers MetaCLIP 2 image": lambda: _transformers(
        "MetaClip2VisionModelWithProjection", "MetaClip2VisionConfig", **_HF_VISION, **_ONE_TOWER
    ),
    "transformers MetaCLIP 2 text": lambda: _transformers("MetaClip2TextModel", "MetaClip2TextConfig", **_HF_TEXT),
    "transformers MetaCLIP 2 text, projected": lambda: _transformers(
        "MetaClip2TextModelWithProjection", "MetaClip2TextConfig", **_HF_TEXT, **_ONE_TOWER
    ),
    "timm distilled": partial(_timm, "deit_tiny_distilled_patch16_224", num_classes=0, **_SMALL),
    "timm all tokens": partial(_timm, "test_vit", num_classes=0, global_pool=""),
}
"""What a tower may have otherwise: another pooling, another class, something in a block that a plain one has not."""


def build(name: str) -> nn.Module:
    """The model called `name`, always with the same random weights, for inference."""
    torch.manual_seed(0)
    return (BUILDERS.get(name) or VARIANTS[name])().eval()


def config(name: str) -> dict | None:
    """The `model_cfg` of an open_clip model (none of open_clip's named ones); None for one that describes itself."""
    if name not in OPEN_CLIP:
        return None
    kind, options = OPEN_CLIP[name]
    return {**open_clip_config(**options), **({} if kind == "CLIP" else {"custom_text": True})}


def save_open_clip(folder: Path, name: str) -> Path:
    """Write model `name` into `folder` as open_clip publishes models: configuration and weights. Returns `folder`."""
    from safetensors.torch import save_file

    settings = {"model_cfg": config(name), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings), "utf-8")
    save_file(build(name).state_dict(), folder / "open_clip_model.safetensors")
    return folder
