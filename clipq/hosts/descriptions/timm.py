"""timm's vision transformers."""

from __future__ import annotations

from typing import Any

from torch import nn

from .writing import Part, Undescribed, Writer


def image(writer: Writer, tower: Any) -> Part:
    prefix = [token for token in (tower.cls_token, tower.reg_token) if token is not None]
    keep, pooled = _pool(writer, tower)
    return _tower(writer, tower, prefix, keep, [*pooled, *writer.norms(tower.fc_norm)])


def distilled(writer: Writer, tower: Any) -> Part:
    """DeiT's with a distillation token (Touvron et al., arXiv:2012.12877): the mean of that and the class token."""
    return _tower(writer, tower, [tower.cls_token, tower.dist_token], None, [{"mean": [0, 2]}])


def _tower(writer: Writer, tower: Any, prefix: list[Any], keep: int | None, steps: list[Part]) -> Part:
    """`steps`: those after the last norm."""
    embedding = tower.patch_embed
    if type(embedding).__name__ != "PatchEmbed" or type(embedding.norm) is not nn.Identity:
        raise Undescribed(f"its patch embedding is a {type(embedding).__name__} of another kind")
    placed = 0 if tower.no_embed_class else tower.num_prefix_tokens
    return {
        **writer.patches(embedding.proj, embedding.img_size),
        "prefix": [writer.name(token) for token in prefix],
        **({} if tower.pos_embed is None else {"positions": writer.positions(tower.pos_embed, placed)}),
        **({} if type(tower.norm_pre) is nn.Identity else {"norm": writer.norm(tower.norm_pre)}),
        "keep": keep,
        "steps": [*writer.norms(tower.norm), *steps],
    }


def _pool(writer: Writer, tower: Any) -> tuple[int | None, list[Part]]:
    """The one token that is read, and the step that pools several."""
    every = hasattr(tower, "pool_include_prefix") is False and tower.attn_pool is not None  # Eva's reads all tokens
    skipped = 0 if every or getattr(tower, "pool_include_prefix", False) else tower.num_prefix_tokens
    if tower.attn_pool is not None:
        if skipped:
            raise Undescribed("its attention pool leaves out the class token")
        return None, [{"attention": writer.pool(tower.attn_pool)}]
    if tower.global_pool == "token":
        return 0, []
    if tower.global_pool == "avg":
        return None, [{"mean": skipped}]
    raise Undescribed(f"tokens are pooled by {tower.global_pool!r}")


TOWERS = {"VisionTransformer": image, "VisionTransformerDistilled": distilled, "Eva": image}
