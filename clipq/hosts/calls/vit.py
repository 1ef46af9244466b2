"""transformers' ViT and its layers, run as a whole."""

from __future__ import annotations

from transformers.models.vit import modeling_vit as host

from .plain import WithPooler
from .transformers import Layer


class ViTModel(WithPooler, host.ViTModel):
    pass


class ViTLayer(Layer, host.ViTLayer):
    pass
