"""The pretrained start: DeiT-Tiny (Touvron et al., 2021; Apache-2.0) as open_clip's own tower, and its classes."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

import clipq

SIZE, WIDTH, LAYERS = 224, 192, 12
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TIMM = "deit_tiny_patch16_224.fb_in1k"
_PARTS = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "attn.proj": "attn.out_proj",
}


def vision_config(layers: int = LAYERS) -> dict:
    """open_clip's configuration of a tower that computes what timm's DeiT-Tiny does."""
    shape = {"image_size": SIZE, "patch_size": 16, "width": WIDTH, "layers": layers, "head_width": 64}
    return shape | {"no_ln_pre": True, "norm_kwargs": {"eps": 1e-6}}


def load(source: str | None) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The tower's state in open_clip's names, and the direction of each ImageNet class in its features, [1000, 192].

    source: an open_clip folder whose image tower is timm's DeiT-Tiny and whose texts were fitted to its classifier, or
    None for timm's own weights (downloaded) and classifier.
    """
    if source is None:
        import timm

        state = timm.create_model(_TIMM, pretrained=True).state_dict()
        return converted(state), F.normalize(state["head.weight"], dim=-1)
    import open_clip

    model = open_clip.create_model(f"local-dir:{Path(source).resolve()}").eval()
    state = converted(model.visual.trunk.state_dict())
    clipq.quantize(model, "fp32")  # the same numbers, without computing the texts' padding
    return state, _class_rows(model, open_clip.get_tokenizer(f"local-dir:{Path(source).resolve()}"))


@torch.no_grad()
def _class_rows(model, tokenize) -> torch.Tensor:
    """The classes' middles over a fourth of OpenAI's 80 wordings."""
    from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    texts = ([template(name) for name in IMAGENET_CLASSNAMES] for template in OPENAI_IMAGENET_TEMPLATES[::4])
    return F.normalize(sum(model.encode_text(tokenize(group), normalize=True) for group in texts), dim=-1)


def converted(timm: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's names and parts as open_clip's; the patches' bias, which open_clip has not, goes into their positions."""
    positions = timm["pos_embed"][0].clone()
    positions[1:] += timm["patch_embed.proj.bias"]
    state = {
        "class_embedding": timm["cls_token"][0, 0].clone(),
        "positional_embedding": positions,
        "conv1.weight": timm["patch_embed.proj.weight"],
        "ln_post.weight": timm["norm.weight"],
        "ln_post.bias": timm["norm.bias"],
    }
    for layer in range(LAYERS):
        theirs, ours = f"blocks.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            state |= {f"{ours}{b}.{kind}": timm[f"{theirs}{a}.{kind}"] for a, b in _PARTS.items()}
            state[f"{ours}attn.in_proj_{kind}"] = timm[f"{theirs}attn.qkv.{kind}"]
    return state
