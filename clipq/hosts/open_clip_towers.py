"""open_clip's towers as `clipq.towers` runs them: its vision transformer, timm trunks, its text transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..towers.blocks import BlockNames
from ..towers.rows import Tower, blocks_of
from ..towers.transformer import Block
from .base import is_class
from .timm import trunk_tower

_MODELS = ("open_clip.model.CLIP", "open_clip.model.CustomTextCLIP", "open_clip.coca_model.CoCa")


def image_tower(module: nn.Module, tables: Mapping[str, BlockNames]) -> Tower | None:
    """The image tower of an open_clip model; None where it is not exactly a known one."""
    visual = module.visual
    if not is_class(module, *_MODELS):
        return None
    if is_class(visual, "open_clip.timm_model.TimmModel"):
        return trunk_tower(visual.trunk, partial(_finish_trunk, visual), (visual,))
    if not is_class(visual, "open_clip.transformer.VisionTransformer") or not _pools_one_vector(visual):
        return None
    blocks = _blocks(visual, tables)
    one_token = visual.pool_type == "tok" and visual.attn_pool is None
    head = partial(_image_head, visual, one_token)
    return blocks and Tower(blocks, visual._embeds, head, (visual,), 0 if one_token else None)


def _pools_one_vector(visual: nn.Module) -> bool:
    contrastive = getattr(visual, "attn_pool_contrastive", None)  # there only beside an attention pool
    return visual.pool_type in ("tok", "avg") and contrastive is None


def _blocks(tower: nn.Module, tables: Mapping[str, BlockNames]) -> tuple[Block, ...] | None:
    stack = tower.transformer
    return blocks_of(stack.resblocks, tables) if is_class(stack, "open_clip.transformer.Transformer") else None


def _image_head(visual: nn.Module, one_token: bool, x: Tensor) -> Tensor:
    pooled, _ = visual._pool(x[:, None] if one_token else x)
    return pooled if visual.proj is None else pooled @ visual.proj


def _finish_trunk(visual: nn.Module, x: Tensor) -> Tensor:
    return visual.head(visual.trunk.forward_head(x))


def text_tower(module: nn.Module, tables: Mapping[str, BlockNames]) -> Tower | None:
    """The text tower of an open_clip model; None where it is not exactly a known one."""
    text = module if is_class(module, "open_clip.model.CLIP") else getattr(module, "text", None)
    if not is_class(module, *_MODELS) or not _is_plain_text(module, text):
        return None
    blocks, pool = _blocks(text, tables), _pool_of(text)
    if blocks is None or pool is None:
        return None
    own = (text.transformer, text.token_embedding, text.ln_final, text.text_projection)
    parts = tuple(part for part in own if isinstance(part, nn.Module)) if text is module else (text,)
    causal, context = text.attn_mask is not None, text.positional_embedding.shape[0]
    return Tower(blocks, partial(_embed_text, text), partial(_text_head, text), parts, pool, causal, context)


def _is_plain_text(module: nn.Module, text: nn.Module | None) -> bool:
    if text is not module:
        if not is_class(text, "open_clip.transformer.TextTransformer"):
            return False
        if text.cls_emb is not None or text.use_pad_mask:  # CoCa's own class token; a mask over padding
            return False
    return text.attn_mask is None or _is_causal(text.attn_mask)


def _is_causal(mask: Tensor) -> bool:
    return torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1))


def _pool_of(text: nn.Module) -> Callable[[Tensor], Tensor] | None:
    own = is_class(text, "open_clip.model.CLIP")
    kind = getattr(text, "text_pool_type" if own else "pool_type", None)
    end = getattr(text, "text_eos_id" if own else "eos_id", None)
    return partial(_end_of_text, end) if kind == "eos" and end is not None else _POOLS.get(kind)


def _end_of_text(end: int, ids: Tensor) -> Tensor:
    return (ids == end).int().argmax(dim=-1)


_POOLS = {
    "argmax": lambda ids: ids.argmax(dim=-1),
    "last": lambda ids: torch.full_like(ids[:, 0], ids.shape[1] - 1),
    "first": lambda ids: torch.zeros_like(ids[:, 0]),
}


def _embed_text(text: nn.Module, ids: Tensor, positions: Tensor) -> Tensor:
    dtype = text.transformer.get_cast_dtype()
    return text.token_embedding(ids).to(dtype) + text.positional_embedding[positions].to(dtype)


def _text_head(text: nn.Module, x: Tensor) -> Tensor:
    x, projection = text.ln_final(x), text.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection
