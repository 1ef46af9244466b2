"""timm's vision transformers and their blocks, each run as a whole."""

from __future__ import annotations

from timm.layers import Mlp, attention_pool
from timm.models import deit, eva, vision_transformer
from torch import Tensor, nn

from ...towers.calls import WholeBlock, WholePool, WholeTower, is_pixels
from ...towers.finding import blocks_of, only_block
from ...towers.pools import Pool
from ...towers.rows import Tower, run_image, run_tokens
from ...towers.sequences import Rotary
from ...towers.transformer import Block as Rows
from ..base import is_class
from ..tables import TIMM
from .pools import mlp_of, whole

_AXIAL = tuple(f"timm.layers.pos_embed_sincos.{name}" for name in ("RotaryEmbeddingCat", "RotaryEmbeddingDinoV3"))
"""Rotary embeddings that are the same for all heads and blocks."""


class Trunk(WholeTower):
    """`forward` with the last block for the class token alone, where the embedding is read from it."""

    def settings(self) -> object:
        return self.global_pool

    def find(self) -> Tower | None:
        blocks = blocks_of(self.blocks, TIMM)
        if blocks is None:
            return None
        one_token = self.global_pool == "token" and self.attn_pool is None
        head = self._norm_one if one_token else self.norm
        return Tower(blocks, self._embed, head, tuple(self.children()), 0 if one_token else None)

    def _embed(self, pixels: Tensor) -> Tensor | tuple[Tensor, Rotary | None]:
        raise NotImplementedError

    def _norm_one(self, x: Tensor) -> Tensor:
        return self.norm(x[:, None])

    def _usable(self, x: Tensor, options: dict) -> Tower | None:
        return self.usable(x) if is_pixels(x) and _is_plain(options) else None

    def pooled_tokens(self, x: Tensor) -> Tensor:
        """Those of `forward_features` that `forward_head` reads: [batch, 1, width], or all."""
        tower = self._usable(x, {})
        return super().forward_features(x) if tower is None else run_image(tower, x)

    def forward_features(self, x: Tensor, **options: object) -> Tensor:
        tower = self._usable(x, options)
        return super().forward_features(x, **options) if tower is None else self.norm(run_tokens(tower, x))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        # Named one by one, for torch.fx, and handed on only if given: older versions of timm have fewer of them.
        given = {"attn_mask": attn_mask, "is_causal": is_causal}
        options = {name: value for name, value in given.items() if value is not None and value is not False}
        tower = self._usable(x, options)
        return super().forward(x, **options) if tower is None else self.forward_head(run_image(tower, x))


class VisionTransformer(Trunk, vision_transformer.VisionTransformer):
    def _embed(self, pixels: Tensor) -> Tensor:
        return self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(pixels))))


class VisionTransformerDistilled(VisionTransformer, deit.VisionTransformerDistilled):
    """DeiT's with a distillation token: its head reads two of all tokens."""

    def find(self) -> Tower | None:
        blocks = blocks_of(self.blocks, TIMM)
        return blocks and Tower(blocks, self._embed, self.norm, tuple(self.children()), None)


class Eva(Trunk, eva.Eva):
    """EVA, EVA02, DINOv3 and PE: rotary embeddings of two axes for the patches, none for what stands before them."""

    def settings(self) -> object:
        return super().settings(), self.num_prefix_tokens, self.rope is None

    def find(self) -> Tower | None:
        same = all(getattr(one.attn, "num_prefix_tokens", None) == self.num_prefix_tokens for one in self.blocks)
        known = self.rope is None or (is_class(self.rope, *_AXIAL) and not getattr(self, "rope_mixed", False))
        return super().find() if same and known else None

    def _embed(self, pixels: Tensor) -> tuple[Tensor, Rotary | None]:
        x, rope = self._pos_embed(self.patch_embed(pixels))
        return self.norm_pre(x), _rotary(rope, self.num_prefix_tokens)


def _rotary(rope: Tensor | None, prefix: int) -> Rotary | None:
    """timm's table [tokens, 2 * head], sines before cosines."""
    if rope is None:
        return None
    sin, cos = rope.chunk(2, dim=-1)
    return Rotary(cos, sin, prefix)


class Block(WholeBlock, vision_transformer.Block):
    def find(self) -> Rows | None:
        return only_block(self, TIMM)

    def forward(self, x: Tensor, **options: object) -> Tensor:
        y = self.run(x, causal=False) if _is_plain(options) else None
        return super().forward(x, **options) if y is None else y


class EvaBlock(WholeBlock, eva.EvaBlock):
    def find(self) -> Rows | None:
        return only_block(self, TIMM)

    def forward(self, x: Tensor, rope: Tensor | None = None, **options: object) -> Tensor:
        known = _is_plain(options) and (rope is None or rope.ndim == 2)
        y = self.run(x, False, _rotary(rope, self.attn.num_prefix_tokens)) if known else None
        return super().forward(x, rope=rope, **options) if y is None else y


class AttentionPoolLatent(WholePool, attention_pool.AttentionPoolLatent):
    def settings(self) -> object:
        return self.pool, self.latent_len, self.pos_embed is None, self.num_heads

    def find(self) -> Pool | None:
        bare = nn.Identity
        plain = self.latent_len == 1 and self.pool in ("token", "avg") and self.pos_embed is None
        if not plain or type(self.q_norm) is not bare or type(self.k_norm) is not bare:
            return None
        q, kv, proj, mlp = None if type(self.q) is bare else whole(self.q), whole(self.kv), whole(self.proj), None
        if self.mlp is not None:
            if type(self.mlp) is not Mlp or type(self.mlp.norm) is not bare:
                return None
            mlp = mlp_of(self.norm, self.mlp.fc1, self.mlp.act, self.mlp.fc2)
        complete = kv and proj and (q or type(self.q) is bare) and (mlp or self.mlp is None)
        return Pool(self.num_heads, lambda: self.latent, q, kv, proj, mlp) if complete else None

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        y = self.run(x) if attn_mask is None else None
        return super().forward(x, *(() if attn_mask is None else (attn_mask,))) if y is None else y


def _is_plain(options: dict) -> bool:
    """Whether neither a mask nor causal attention is asked for."""
    return all(value is None or value is False for value in options.values())
