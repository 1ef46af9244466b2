"""open_clip's image and text towers and their blocks (3.x), each run as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch
from open_clip import coca_model, model, transformer
from torch import Tensor, nn

from ...towers.calls import Whole, WholeBlock, WholePool, WholeTower, is_pixels, is_text
from ...towers.finding import blocks_of, only_block
from ...towers.pools import Pool
from ...towers.rows import Tower, knows_ids, run_image, run_text
from ...towers.transformer import Block
from ..base import is_class
from ..tables import OPEN_CLIP
from .pools import of_attention


class VisionTransformer(WholeTower, transformer.VisionTransformer):
    """The last block for the class token alone, where the embedding is read from it."""

    def settings(self) -> object:
        return self.pool_type, self.output_tokens, self.proj is None

    def find(self) -> Tower | None:
        blocks = _blocks(self)
        if blocks is None or self.pool_type not in ("tok", "avg") or not self._pools_once():
            return None
        one_token = self.pool_type == "tok" and self.attn_pool is None and not self.output_tokens
        pool = 0 if one_token else None
        return Tower(blocks, self._embeds, partial(self._finish, one_token), tuple(self.children()), pool)

    def _pools_once(self) -> bool:
        return getattr(self, "attn_pool_contrastive", None) is None  # there only beside an attention pool

    def _finish(self, one_token: bool, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        pooled, tokens = self._pool(x[:, None] if one_token else x)
        pooled = pooled if self.proj is None else pooled @ self.proj
        return (pooled, tokens) if self.output_tokens else pooled

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        tower = self.usable(x) if is_pixels(x) else None
        return super().forward(x) if tower is None else run_image(tower, x)


class _Text(WholeTower):
    """What the text tower of `CLIP` (a part of the model) and `TextTransformer` (a module) share."""

    def settings(self) -> object:
        mask = self.attn_mask
        version = None if mask is None or mask.is_inference() else mask._version
        return id(mask), version, self._pooling(), self.text_projection is None

    def _pooling(self) -> tuple[str | None, int | None]:
        """How the token is found that the embedding is read from, and the id of the end of text."""
        raise NotImplementedError

    def _known(self) -> bool:
        return self.attn_mask is None or is_causal(self.attn_mask)

    def find(self) -> Tower | None:
        blocks, pool = _blocks(self), _pool_by(*self._pooling())
        if blocks is None or pool is None or not self._known():
            return None
        causal, context = self.attn_mask is not None, self.positional_embedding.shape[0]
        parts, vocabulary = tuple(self._stood_in_for()), self.token_embedding.num_embeddings
        return Tower(blocks, self._embed_rows, self._finish, parts, pool, causal, context, vocabulary)

    def _stood_in_for(self) -> Iterable[nn.Module]:
        parts = (self.transformer, self.token_embedding, self.ln_final, self.text_projection)
        return (part for part in parts if isinstance(part, nn.Module))

    def _embed_rows(self, ids: Tensor, positions: Tensor) -> Tensor:
        dtype = self.transformer.get_cast_dtype()
        return self.token_embedding(ids).to(dtype) + self.positional_embedding[positions].to(dtype)

    def _finish(self, x: Tensor) -> Tensor:
        x, projection = self.ln_final(x), self.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Module) else x @ projection

    def _whole(self, ids: Tensor) -> Tensor | None:
        """[batch, width] of token ids, or None if the host's own forward has to run."""
        tower = self.usable(ids) if is_text(ids) else None
        fits = tower is not None and ids.shape[1] == tower.context and knows_ids(tower, ids)
        return run_text(tower, ids) if fits else None


class CLIP(_Text, model.CLIP):
    """`encode_text`, cut at the end of each text; `encode_image` calls `visual`, which knows by itself."""

    def _pooling(self) -> tuple[str | None, int | None]:
        return getattr(self, "text_pool_type", None), getattr(self, "text_eos_id", None)

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        features = self._whole(text)
        if features is None:
            return super().encode_text(text, normalize)
        return nn.functional.normalize(features, dim=-1) if normalize else features


class TextTransformer(_Text, transformer.TextTransformer):
    """`CustomTextCLIP`'s text tower; not with a mask over padding, or all tokens asked for (but see `CoCa`)."""

    def settings(self) -> object:
        own = (self.pad_id, getattr(self, "correct_cls_mask", False)) if self._has_class() else None
        return super().settings(), self.use_pad_mask, own

    def _has_class(self) -> bool:
        return self.cls_emb is not None

    def find(self) -> Tower | None:
        found = super().find()
        if found is None or not self._has_class():
            return found
        context = self.positional_embedding.shape[0] - 1
        return replace(found, parts=(self,), context=context, classed=self._seen_of)

    def _seen_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What the mask of `_build_additive_mask` leaves of texts whose padding stands at their end."""
        keys = self._keys_of(ids)
        return keys[:, :-1].sum(dim=-1), ~keys[:, -1]

    def _keys_of(self, ids: Tensor) -> Tensor:
        """Bool [batch, tokens + 1]: which rows, the class token's last, are attended to.

        One too far to the right unless `correct_cls_mask` says otherwise: so CoCa was trained.
        """
        valid, own = ids != self.pad_id, ids.new_ones(len(ids), 1, dtype=torch.bool)
        return torch.cat([valid, own] if getattr(self, "correct_cls_mask", False) else [own, valid], dim=1)

    def _pads_at_end(self, ids: Tensor) -> bool:
        keys = self._keys_of(ids)[:, :-1].int()
        return bool((keys.cummin(dim=1).values == keys).all())

    def _embed_rows(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = super()._embed_rows(ids, positions)
        if not self._has_class():
            return x
        last = self.positional_embedding.shape[0] - 1
        own = self.cls_emb.to(x.dtype) + self.positional_embedding[last].to(x.dtype)
        return torch.where((positions == last)[:, None], own, x)

    def _whole(self, ids: Tensor) -> Tensor | None:
        if self._has_class() and (torch.compiler.is_compiling() or not is_text(ids) or not self._pads_at_end(ids)):
            return None
        return super()._whole(ids)

    def _pooling(self) -> tuple[str | None, int | None]:
        return self.pool_type, getattr(self, "eos_id", None)

    def _known(self) -> bool:
        causal = self.attn_mask is not None or not self._has_class()
        return super()._known() and causal and not self.use_pad_mask

    def forward(self, text: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = None if self.output_tokens else self._whole(text)
        return super().forward(text) if features is None else features


class CoCa(Whole, coca_model.CoCa):
    """`encode_text` without the tokens that its captioning decoder reads."""

    def encode_text(self, text: Tensor, normalize: bool = True) -> Tensor:
        features = self.text._whole(text) if isinstance(self.text, TextTransformer) else None
        if features is None:
            return super().encode_text(text, normalize)
        return nn.functional.normalize(features, dim=-1) if normalize else features


class _Layer(WholeBlock):
    def find(self) -> Block | None:
        return only_block(self, OPEN_CLIP)

    def _run(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        return self.run(x, _seen(mask, x)) if getattr(self.attn, "batch_first", True) else None


class ResidualAttentionBlock(_Layer, transformer.ResidualAttentionBlock):
    def forward(
        self, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        y = self._run(q_x, attn_mask) if k_x is None and v_x is None else None
        return super().forward(q_x, k_x, v_x, attn_mask) if y is None else y


class CustomResidualAttentionBlock(_Layer, transformer.CustomResidualAttentionBlock):
    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        y = self._run(x, attn_mask)
        return super().forward(x, attn_mask) if y is None else y


class AttentionalPooler(WholePool, transformer.AttentionalPooler):
    """CoCa's, where it has one query."""

    def find(self) -> Pool | None:
        attention = of_attention(self.attn)
        if attention is None or len(self.query) != 1:
            return None
        norms = {"norm_query": self.ln_q, "norm_keys": self.ln_k}
        return Pool(self.attn.num_heads, lambda: self.query, *attention, **norms)

    def forward(self, x: Tensor) -> Tensor:
        y = self.run(x)
        return super().forward(x) if y is None else y[:, None]


def _blocks(tower: nn.Module) -> tuple[Block, ...] | None:
    stack = tower.transformer
    return blocks_of(stack.resblocks, OPEN_CLIP) if is_class(stack, "open_clip.transformer.Transformer") else None


def _seen(mask: Tensor | None, x: Tensor) -> bool | None:
    """Whether a mask over `x` [batch, tokens, width] is causal; None for another one, or one that does not fit."""
    if mask is None:
        return False
    if torch.compiler.is_compiling() or not (isinstance(mask, Tensor) and isinstance(x, Tensor)):
        return None
    tokens = x.shape[1]
    return True if mask.shape == (tokens, tokens) and is_causal(mask) else None


def is_causal(mask: Tensor) -> bool:
    return torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1))


def _pool_by(kind: str | None, end: int | None) -> Callable[[Tensor], Tensor] | None:
    if kind == "eos" and end is not None:
        return lambda ids: (ids == end).int().argmax(dim=-1)
    return _POOLS.get(kind)


_POOLS = {
    "argmax": lambda ids: ids.argmax(dim=-1),
    "last": lambda ids: torch.full_like(ids[:, 0], ids.shape[1] - 1),
    "first": lambda ids: torch.zeros_like(ids[:, 0]),
}
