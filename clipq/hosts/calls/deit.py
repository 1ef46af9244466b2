"""transformers' DeiT and its layers, run as a whole."""

from __future__ import annotations

from transformers.models.deit import modeling_deit as host

from .plain import WithPooler
from .transformers import Layer


class DeiTModel(WithPooler, host.DeiTModel):
    pass


class DeiTLayer(Layer, host.DeiTLayer):
    pass
