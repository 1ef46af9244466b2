"""transformers' SigLIP 2: its text tower, and the layers of both. Its images are patches of any number, with a mask."""

from __future__ import annotations

from torch import Tensor
from transformers.models.siglip2 import modeling_siglip2 as host

from .siglip import PoolingHead, SiglipText
from .transformers import Layer


class Siglip2TextModel(SiglipText, host.Siglip2TextModel):
    pass


class Siglip2EncoderLayer(Layer, host.Siglip2EncoderLayer):
    pass


class Siglip2MultiheadAttentionPoolingHead(PoolingHead, host.Siglip2MultiheadAttentionPoolingHead):
    def forward(self, hidden_state: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        y = self.run(hidden_state) if attention_mask is None else None
        return super().forward(hidden_state, attention_mask) if y is None else y
