"""transformers' SigLIP 2: its text tower, and the layers of both. Its images are patches of any number, with a mask."""

from __future__ import annotations

from transformers.models.siglip2 import modeling_siglip2 as host

from .siglip import SiglipText
from .transformers import Layer


class Siglip2TextModel(SiglipText, host.Siglip2TextModel):
    pass


class Siglip2EncoderLayer(Layer, host.Siglip2EncoderLayer):
    pass
