"""transformers' towers: CLIP, SigLIP, and the plain image models."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..transformers import end_of_text
from .writing import Part, Undescribed, Writer


def clip_image(writer: Writer, tower: Any) -> Part:
    parts = tower.embeddings
    return {
        **writer.patches(parts.patch_embedding, tower.config.image_size),
        "prefix": [writer.name(parts.class_embedding)],
        "positions": writer.positions(parts.position_embedding.weight, 1),
        "norm": writer.norm(tower.pre_layrnorm),
        "keep": 0,
        "steps": writer.norms(tower.post_layernorm),
    }


def siglip_image(writer: Writer, tower: Any) -> Part:
    if not tower.use_head:
        raise Undescribed("it has no head that makes an embedding of its tokens")
    parts = tower.embeddings
    return {
        **writer.patches(parts.patch_embedding, tower.config.image_size),
        "prefix": [],
        "positions": writer.positions(parts.position_embedding.weight, 0),
        "keep": None,
        "steps": [*writer.norms(tower.post_layernorm), {"attention": writer.pool(tower.head)}],
    }


def plain_image(writer: Writer, tower: Any) -> Part:
    """ViT, DeiT and DINOv2: the normed class token."""
    parts = tower.embeddings
    prefix = [parts.cls_token, *([parts.distillation_token] if hasattr(parts, "distillation_token") else [])]
    return {
        **writer.patches(parts.patch_embeddings.projection, tower.config.image_size),
        "prefix": [writer.name(token) for token in prefix],
        "positions": writer.positions(parts.position_embeddings, len(prefix)),
        "keep": 0,
        "steps": writer.norms(tower.layernorm),
    }


def dinov3_image(writer: Writer, tower: Any) -> Part:
    """The normed class token; positions are in the blocks."""
    parts, registers = tower.embeddings, tower.config.num_register_tokens
    prefix = [parts.cls_token, *([parts.register_tokens] if registers else [])]
    return {
        **writer.patches(parts.patch_embeddings, tower.config.image_size),
        "prefix": [writer.name(token) for token in prefix],
        "keep": 0,
        "steps": writer.norms(tower.norm),
    }


def clip_text(writer: Writer, tower: Any) -> Part:
    pool = {"kind": "argmax"} if end_of_text(tower) is None else _end(tower)
    return {**_text(writer, tower, True), "pool": pool}


def metaclip_2_text(writer: Writer, tower: Any) -> Part:
    return {**_text(writer, tower, True), "pool": _end(tower)}


def _end(tower: Any) -> Part:
    return {"kind": "end", "id": tower.eos_token_id}


def siglip_text(writer: Writer, tower: Any) -> Part:
    described = {**_text(writer, tower, False), "pool": {"kind": "last"}}
    return {**described, "steps": [*described["steps"], *writer.project(tower.head)]}


def _text(writer: Writer, tower: Any, causal: bool) -> Part:
    positions = tower.embeddings.position_embedding.weight
    return {
        **writer.tokens(tower.embeddings.token_embedding),
        "context": positions.shape[0],
        "positions": writer.name(positions),
        "causal": causal,
        "steps": writer.norms(tower.final_layer_norm),
    }


def after(writer: Writer, module: nn.Module, tower: str) -> list[Part]:
    """CLIP's projection, which is the whole model's."""
    name = {"image": "visual_projection", "text": "text_projection"}[tower]
    return writer.project(getattr(module, name, None))


TOWERS = {
    "CLIPVisionModel": clip_image,
    "MetaClip2VisionModel": clip_image,
    "SiglipVisionModel": siglip_image,
    "ViTModel": plain_image,
    "DeiTModel": plain_image,
    "Dinov2Model": plain_image,
    "DINOv3ViTModel": dinov3_image,
    "CLIPTextModel": clip_text,
    "MetaClip2TextModel": metaclip_2_text,
    "SiglipTextModel": siglip_text,
    "Siglip2TextModel": siglip_text,
}
