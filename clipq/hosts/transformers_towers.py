"""transformers' towers as `clipq.towers` runs them: CLIP, SigLIP, and the image models ViT, DeiT and DINOv2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..modules.convolutions import QPatchEmbed
from ..towers.blocks import BlockNames
from ..towers.rows import Tower, blocks_of
from .base import is_class


def _names(package: str, *classes: str) -> tuple[str, ...]:
    return tuple(f"transformers.models.{package}.modeling_{package}.{name}" for name in classes)


_CLIP_IMAGE, _CLIP_TEXT = _names("clip", "CLIPVisionModel"), _names("clip", "CLIPTextModel")
_SIGLIP_IMAGE = _names("siglip", "SiglipVisionModel")
_SIGLIP_TEXT = (*_names("siglip", "SiglipTextModel"), *_names("siglip2", "Siglip2TextModel"))
_PLAIN = (*_names("vit", "ViTModel"), *_names("deit", "DeiTModel"), *_names("dinov2", "Dinov2Model"))
_WITH_TOWERS = (
    *_names("clip", "CLIPModel", "CLIPVisionModelWithProjection", "CLIPTextModelWithProjection"),
    *_names("siglip", "SiglipModel"),
    *_names("siglip2", "Siglip2Model"),
)
_OLD_END = 2  # a CLIP saved with this end-of-text id, which is wrong, is pooled at its largest id


def image_tower(module: nn.Module, tables: Mapping[str, BlockNames]) -> Tower | None:
    """The image tower of a transformers model; None where it is not exactly a known one."""
    base = module.base_model
    if is_class(base, *_PLAIN):
        return _plain_tower(base, tables)
    vision = getattr(module, "vision_model", None) if is_class(module, *_WITH_TOWERS) else module
    if is_class(vision, *_CLIP_IMAGE):
        # `CLIPVisionModelWithProjection` is called through its base model, which does not project.
        project = getattr(module, "visual_projection", None) if hasattr(module, "get_image_features") else None
        return _clip_image(vision, project, tables)
    return _siglip_image(vision, tables) if is_class(vision, *_SIGLIP_IMAGE) else None


def _clip_image(vision: nn.Module, project: nn.Module | None, tables: Mapping[str, BlockNames]) -> Tower | None:
    blocks = blocks_of(vision.encoder.layers, tables)
    head = _chain(vision.post_layernorm, project)
    embed = _chain(partial(_embed_pixels, vision.embeddings), vision.pre_layrnorm)
    return blocks and Tower(blocks, embed, head, _present(vision, project))


def _siglip_image(vision: nn.Module, tables: Mapping[str, BlockNames]) -> Tower | None:
    if not vision.use_head:
        return None
    blocks = blocks_of(vision.encoder.layers, tables)
    embed, head = partial(_embed_pixels, vision.embeddings), _chain(vision.post_layernorm, vision.head)
    return blocks and Tower(blocks, embed, head, (vision,), None)


def _embed_pixels(embeddings: nn.Module, pixels: Tensor) -> Tensor:
    """What CLIP's and SigLIP's embeddings do, which ask an int8 layer for its weight, only to read the dtype."""
    size = (embeddings.image_size, embeddings.image_size)
    if not isinstance(embeddings.patch_embedding, QPatchEmbed) or pixels.shape[2:] != size:
        return embeddings(pixels)
    x = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    if hasattr(embeddings, "class_embedding"):
        x = torch.cat([embeddings.class_embedding.expand(len(x), 1, -1), x], dim=1)
    return x + embeddings.position_embedding(embeddings.position_ids)


def _plain_tower(base: nn.Module, tables: Mapping[str, BlockNames]) -> Tower | None:
    """A ViT, DeiT or DINOv2, whose embedding is its normed class token."""
    stack = base.layers if hasattr(base, "layers") else base.encoder.layer
    blocks = blocks_of(stack, tables)
    return blocks and Tower(blocks, base.embeddings, base.layernorm, (base,))


def text_tower(module: nn.Module, tables: Mapping[str, BlockNames]) -> Tower | None:
    """The text tower of a transformers model; None where it is not exactly a known one."""
    text = getattr(module, "text_model", None) if is_class(module, *_WITH_TOWERS) else module
    if not is_class(text, *_CLIP_TEXT, *_SIGLIP_TEXT):
        return None
    blocks = blocks_of(text.encoder.layers, tables)
    causal = is_class(text, *_CLIP_TEXT)
    last = getattr(module, "text_projection", None) if causal else text.head
    pool = _end_of_text(text.eos_token_id) if causal else _last_token
    context = text.embeddings.position_embedding.weight.shape[0]
    called = None if hasattr(module, "get_text_features") else module
    head, parts = _chain(text.final_layer_norm, last), _present(text, last, called)
    return blocks and Tower(blocks, partial(_embed_text, text), head, parts, pool, causal, context)


def _embed_text(text: nn.Module, ids: Tensor, positions: Tensor) -> Tensor:
    # As sequences of one token each: the host refuses sequences longer than its context.
    return text.embeddings(input_ids=ids[:, None], position_ids=positions[:, None])[:, 0]


def _end_of_text(end: int) -> Callable[[Tensor], Tensor]:
    if end == _OLD_END:
        return lambda ids: ids.argmax(dim=-1)
    return lambda ids: (ids == end).int().argmax(dim=-1)


def _last_token(ids: Tensor) -> Tensor:
    return torch.full_like(ids[:, 0], ids.shape[1] - 1)


def _chain(*steps: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    steps = _present(*steps)

    def run(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return run


def _present(*steps: Callable[[Tensor], Tensor] | None) -> tuple:
    return tuple(step for step in steps if step is not None)
