"""transformers' DINOv3 vision transformer and its layers, run as a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.dinov3_vit import modeling_dinov3_vit as host

from ...modules.convolutions import QPatchEmbed
from ...towers.rows import Tower
from ...towers.sequences import Rotary
from .plain import PlainImage
from .transformers import Layer


class DINOv3ViTModel(PlainImage, host.DINOv3ViTModel):
    """Rotary embeddings of two axes for the patches, made by the host for each size of pictures."""

    def layers_of(self) -> nn.Module:
        return self.model.layer

    def find(self) -> Tower | None:
        blocks = self.blocks(self.layers_of())
        return blocks and Tower(blocks, self._embed, self.norm, (*self.children(),))

    def _embed(self, pixels: Tensor) -> tuple[Tensor, Rotary]:
        # As the host does, which asks an int8 layer for its weight, only to read the dtype.
        parts, embed = self.embeddings, self.embeddings.patch_embeddings
        pixels = pixels.to(embed.compute_dtype if isinstance(embed, QPatchEmbed) else embed.weight.dtype)
        patches = embed(pixels).flatten(2).transpose(1, 2)
        prefix = (token.expand(len(patches), -1, -1) for token in (parts.cls_token, parts.register_tokens))
        x = torch.cat([*prefix, patches], dim=1)
        return x, _rotary(x, *self.rope_embeddings(pixels))

    def normed(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def pooled(self, x: Tensor) -> Tensor:
        return x[:, 0, :]


class DINOv3ViTLayer(Layer, host.DINOv3ViTLayer):
    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        known = attention_mask is None and position_embeddings is not None and not options.get("output_attentions")
        y = self.run(hidden_states, False, _rotary(hidden_states, *position_embeddings)) if known else None
        if y is not None:
            return y
        return super().forward(hidden_states, attention_mask, position_embeddings=position_embeddings, **options)


def _rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Rotary:
    """Tables [patches, head]; what stands before the patches is not turned."""
    return Rotary(cos, sin, x.shape[1] - cos.shape[0])
