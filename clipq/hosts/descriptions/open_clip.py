"""open_clip's own towers."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..base import is_class
from .writing import Part, Undescribed, Writer

_POOLS = ("argmax", "last", "first")


def image(writer: Writer, tower: Any) -> Part:
    if tower.attn_pool is not None or tower.output_tokens:
        raise Undescribed("its attentional pool, or giving all tokens, is not among the native steps")
    norm, pooled = writer.norms(tower.ln_post), []
    if tower.pool_type == "avg":
        pooled = [{"mean": 1}]
    steps = [*pooled, *norm] if tower.final_ln_after_pool else [*norm, *pooled]
    return {
        **writer.patches(tower.conv1, tower.image_size),
        "prefix": [writer.name(tower.class_embedding)],
        "positions": writer.positions(tower.positional_embedding, 1),
        **({} if type(tower.ln_pre) is nn.Identity else {"norm": writer.norm(tower.ln_pre)}),
        "keep": 0 if tower.pool_type == "tok" else None,
        "steps": [*steps, *writer.project(tower.proj)],
    }


def text(writer: Writer, tower: Any) -> Part:
    """`CLIP`, of which the text tower is a part, or `TextTransformer`."""
    if getattr(tower, "cls_emb", None) is not None:
        raise Undescribed("a class token stands at the end of its texts")
    kind, end = tower._pooling()
    pool = {"kind": "end", "id": end} if kind == "eos" and end is not None else {"kind": kind}
    if kind not in (*_POOLS, "eos"):
        raise Undescribed(f"texts are pooled by {kind!r}, not by one token")
    return {
        **writer.tokens(tower.token_embedding),
        "context": tower.positional_embedding.shape[0],
        "positions": writer.name(tower.positional_embedding),
        "causal": tower.attn_mask is not None,
        "pool": pool,
        "steps": [*writer.norms(tower.ln_final), *writer.project(tower.text_projection)],
    }


def after(writer: Writer, module: nn.Module, tower: str) -> list[Part]:
    """What open_clip's adapter puts behind a timm trunk."""
    visual = module.visual
    if tower == "text" or not is_class(visual, "open_clip.timm_model.TimmModel"):
        return []
    heads = [visual.trunk.head, *visual.head]
    return [step for head in heads if not isinstance(head, (nn.Identity, nn.Dropout)) for step in writer.project(head)]


TOWERS = {"VisionTransformer": image, "CLIP": text, "TextTransformer": text}
