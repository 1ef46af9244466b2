"""transformers' MetaCLIP 2: both towers and their layers, each run as a whole, as CLIP's are."""

from __future__ import annotations

from transformers.models.metaclip_2 import modeling_metaclip_2 as host

from .clip import ClipImage, ClipText, ClipTextWithProjection
from .transformers import Layer


class MetaClip2VisionModel(ClipImage, host.MetaClip2VisionModel):
    pass


class MetaClip2TextModel(ClipText, host.MetaClip2TextModel):
    pass


class MetaClip2TextModelWithProjection(ClipTextWithProjection, host.MetaClip2TextModelWithProjection):
    output = host.MetaClip2TextModelOutput


class MetaClip2EncoderLayer(Layer, host.MetaClip2EncoderLayer):
    pass
