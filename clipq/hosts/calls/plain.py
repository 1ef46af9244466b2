"""transformers' plain image models: a ViT whose embedding is its normed class token."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ...towers.calls import is_pixels
from ...towers.rows import Tower, run_image, run_tokens
from .transformers import Pretrained


class PlainImage(Pretrained):
    """`forward` gives all tokens, as its users ask for; `class_token` the embedding alone, for less."""

    def layers_of(self) -> nn.Module:
        return self.layers

    def pooled(self, x: Tensor) -> Tensor | None:
        """`pooler_output` from normed tokens [batch, tokens, width]."""
        raise NotImplementedError

    def normed(self, x: Tensor) -> Tensor:
        return self.layernorm(x)

    def find(self) -> Tower | None:
        blocks = self.blocks(self.layers_of())
        return blocks and Tower(blocks, self.embeddings, self.layernorm, (*self.children(),))

    def _usable(self, pixels: object, options: dict[str, Any]) -> Tower | None:
        plain = is_pixels(pixels) and pixels.is_floating_point()  # the host casts others
        return self.usable(pixels) if plain and self.wanted_whole(options) else None

    def class_token(self, pixels: Tensor) -> Tensor | None:
        """`last_hidden_state[:, 0]`, [batch, width]; None if `forward` has to be called for it."""
        tower = self._usable(pixels, {})
        return None if tower is None else run_image(tower, pixels)

    def forward(self, pixel_values: Tensor | None = None, *masks: Any, **options: Any) -> Any:
        tower = None if any(one is not None for one in masks) else self._usable(pixel_values, options)
        if tower is None:
            return super().forward(pixel_values, *masks, **options)
        x = self.normed(run_tokens(tower, pixel_values))
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=self.pooled(x))


class WithPooler(PlainImage):
    """ViT and DeiT."""

    def pooled(self, x: Tensor) -> Tensor | None:
        return None if self.pooler is None else self.pooler(x)
