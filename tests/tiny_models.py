"""Small random models of every host and family: real classes, a few thousand weights, no network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    **{name: partial(_open_clip, kind, **options) for name, (kind, options) in OPEN_CLIP.items()},
    "transformers CLIP": lambda: _two_towers("CLIP"),
    "transformers SigLIP": lambda: _two_towers("Siglip"),
    "transformers ViT": lambda: _transformers("ViTModel", "ViTConfig", **_HF_VISION),
    "transformers DeiT": lambda: _transformers("DeiTModel", "DeiTConfig", **_HF_VISION),
    "transformers DINOv2": lambda: _transformers("Dinov2Model", "Dinov2Config", **_HF_VISION),
    "timm vision_transformer": lambda: _timm("test_vit", num_classes=0),
}


def build(name: str) -> nn.Module:
    """The model called `name`, always with the same random weights, for inference."""
    torch.manual_seed(0)
    return BUILDERS[name]().eval()


def config(name: str) -> dict | None:
    """The `model_cfg` of an open_clip model (none of open_clip's named ones); None for one that describes itself."""
    if name not in OPEN_CLIP:
        return None
    kind, options = OPEN_CLIP[name]
    return {**open_clip_config(**options), **({} if kind == "CLIP" else {"custom_text": True})}
