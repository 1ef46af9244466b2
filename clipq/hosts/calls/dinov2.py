"""transformers' DINOv2 and its layers, run as a whole."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.models.dinov2 import modeling_dinov2 as host

from .plain import PlainImage
from .transformers import Layer


class Dinov2Model(PlainImage, host.Dinov2Model):
    def layers_of(self) -> nn.Module:
        return self.encoder.layer

    def pooled(self, x: Tensor) -> Tensor:
        return x[:, 0, :]


class Dinov2Layer(Layer, host.Dinov2Layer):
    pass
