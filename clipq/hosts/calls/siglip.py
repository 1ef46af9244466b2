"""transformers' SigLIP: both towers and their layers, each run as a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.siglip import modeling_siglip as host

from ...towers.calls import WholePool, is_pixels
from ...towers.pools import Pool
from ...towers.rows import Tower, run_image
from .pools import mlp_of, of_attention
from .transformers import Layer, Pretrained, TextModel, embed_pixels


class SiglipVisionModel(Pretrained, host.SiglipVisionModel):
    """Its attention pool reads all tokens."""

    def find(self) -> Tower | None:
        blocks = self.blocks(self.encoder.layers)
        parts = (*self.children(),)
        return blocks and Tower(blocks, embed_pixels(self.embeddings), self.post_layernorm, parts, None)

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool | None = False, **options: Any) -> Any:
        plain = is_pixels(pixel_values) and not interpolate_pos_encoding and self.wanted_whole(options)
        tower = self.usable(pixel_values) if plain else None
        if tower is None:
            return super().forward(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **options)
        x = run_image(tower, pixel_values)
        pooled = self.head(x) if self.use_head else None
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=pooled)


class SiglipText(TextModel):
    """Sees both ways, and is read at its last token, which may be padding."""

    def find(self) -> Tower | None:
        blocks, context = self.blocks(self.encoder.layers), self.embeddings.position_embedding.weight.shape[0]
        parts, vocabulary = (*self.children(),), self.embeddings.token_embedding.num_embeddings
        return blocks and Tower(blocks, self.embed_rows, self._finish, parts, _last_token, False, context, vocabulary)

    def _finish(self, x: Tensor) -> Tensor:
        return self.head(self.final_layer_norm(x))


def _last_token(ids: Tensor) -> Tensor:
    return torch.full_like(ids[:, 0], ids.shape[1] - 1)


class SiglipTextModel(SiglipText, host.SiglipTextModel):
    pass


class SiglipEncoderLayer(Layer, host.SiglipEncoderLayer):
    pass


class PoolingHead(WholePool):
    """One learned probe over all tokens."""

    def find(self) -> Pool | None:
        attention, inner = of_attention(self.attention), self.mlp
        mlp = mlp_of(self.layernorm, inner.fc1, inner.activation_fn, inner.fc2)
        plain = attention is not None and mlp is not None and type(inner).__name__ in ("SiglipMLP", "Siglip2MLP")
        return Pool(self.attention.num_heads, lambda: self.probe, *attention, mlp) if plain else None


class SiglipMultiheadAttentionPoolingHead(PoolingHead, host.SiglipMultiheadAttentionPoolingHead):
    def forward(self, hidden_state: Tensor) -> Tensor:
        y = self.run(hidden_state)
        return super().forward(hidden_state) if y is None else y
