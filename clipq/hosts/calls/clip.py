"""transformers' CLIP: both towers and their layers, each run as a whole; and what MetaCLIP 2 shares with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip import modeling_clip as host

from ...towers.calls import is_pixels
from ...towers.rows import Tower, run_in_two, run_tokens
from ..transformers import end_of_text
from .outputs import unfinished
from .transformers import Layer, Pretrained, TextModel, embed_pixels


class ClipImage(Pretrained):
    """The last block for the class token alone, and for the others once `last_hidden_state` is asked for."""

    def find(self) -> Tower | None:
        blocks, embed = self.blocks(self.encoder.layers), embed_pixels(self.embeddings)
        if blocks is None:
            return None
        return Tower(blocks, lambda pixels: self.pre_layrnorm(embed(pixels)), self.post_layernorm, (*self.children(),))

    def forward(
        self, pixel_values: Tensor | None = None, interpolate_pos_encoding: bool | None = False, **options: Any
    ) -> Any:
        plain = is_pixels(pixel_values) and not interpolate_pos_encoding and self.wanted_whole(options)
        tower = self.usable(pixel_values) if plain else None
        if tower is None:
            return super().forward(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **options)
        if torch.compiler.is_compiling():  # a graph gives all of its outputs or none
            x = run_tokens(tower, pixel_values)
            return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=tower.head(x[:, 0]))
        pooled, hidden = run_in_two(tower, pixel_values)
        return unfinished(BaseModelOutputWithPooling, hidden, pooler_output=pooled)


class ClipText(TextModel):
    """Cut at the end of each text."""

    def settings(self) -> object:
        return self.eos_token_id

    def find(self) -> Tower | None:
        blocks, context = self.blocks(self.encoder.layers), self.embeddings.position_embedding.weight.shape[0]
        if blocks is None:
            return None
        parts, known = (*self.children(),), self.embeddings.token_embedding.num_embeddings
        return Tower(blocks, self.embed_rows, self.final_layer_norm, parts, self._end_of_text, True, context, known)

    def _end_of_text(self, ids: Tensor) -> Tensor:
        return (ids == self.eos_token_id).int().argmax(dim=-1)


class ClipTextWithProjection(TextModel):
    """Its own forward would ask for the hidden states at once."""

    output: type  # of a call

    def find(self) -> Tower | None:
        return self.text_model.found() if isinstance(self.text_model, ClipText) else None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **options: Any,
    ) -> Any:
        call = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids, **options}
        if self.training or not self.wanted_whole(options) or torch.compiler.is_compiling():
            return super(TextModel, self).forward(**call)
        found = self.text_model(**call)
        embeds = self.text_projection(found.pooler_output)
        return unfinished(self.output, lambda: found.last_hidden_state, text_embeds=embeds)


class CLIPVisionModel(ClipImage, host.CLIPVisionModel):
    pass


class CLIPTextModel(ClipText, host.CLIPTextModel):
    def _end_of_text(self, ids: Tensor) -> Tensor:
        return ids.argmax(dim=-1) if end_of_text(self) is None else super()._end_of_text(ids)


class CLIPTextModelWithProjection(ClipTextWithProjection, host.CLIPTextModelWithProjection):
    output = host.CLIPTextModelOutput


class CLIPEncoderLayer(Layer, host.CLIPEncoderLayer):
    pass
