"""The convolutions that are linears over rows cut from their input: `QPatchEmbed` and `QPointwise`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..arithmetic.schemes import Scheme
from ..errors import DataError
from .layers import QLinear
from .tracing import fx_leaf

_MOST_CHANNELS = 4  # pixels; a strided convolution over features (ConvNeXt's downsampling) is no patch embedding
_SETTINGS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


class QConvolution(QLinear):
    """An `nn.Conv2d` as one int8 product: `qweight` [out, channels, height, width], and the settings that hosts read.

    timm asks its patch embedding for `in_channels`, `kernel_size` and the like when an input size is set.
    """

    _kept: tuple[Any, Tensor] | None = None

    @classmethod
    def from_float(cls, conv: nn.Conv2d, scheme: Scheme, name: str = "conv") -> QConvolution:
        layer = cls(conv.weight, conv.bias, scheme, f"{name}.weight")
        for setting in _SETTINGS:
            setattr(layer, setting, getattr(conv, setting))
        return layer

    @property
    def weight(self) -> Tensor:
        """As for every quantized module, but kept: transformers reads its dtype at every call."""
        if torch.compiler.is_compiling():
            return self._dequantized()
        key = (self.stamp, self.compute_dtype)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self._dequantized())
        return self._kept[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kernel_size={self.kernel_size}, stride={self.stride}"


class QPatchEmbed(QConvolution):
    """A patch embedding: a convolution whose kernel is its stride, as one int8 product over the patches.

    Maps [batch, channels, height, width] to [batch, out, height // patch, width // patch] in `compute_dtype`.
    Raises `DataError` for what the convolution refuses: its rows would be cut from whatever comes.
    """

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a convolution over patches of pixels that neither overlap nor leave gaps."""
        return (
            type(module) is nn.Conv2d
            and module.kernel_size == module.stride
            and module.padding in ((0, 0), "valid")
            and module.dilation == (1, 1)
            and module.groups == 1
            and module.in_channels <= _MOST_CHANNELS
            and min(module.kernel_size) > 1
        )

    @fx_leaf
    def forward(self, x: Tensor) -> Tensor:
        channels, down, across = self.weight_shape[1:]
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] < down or x.shape[3] < across:
            raise DataError(
                f"pixels of shape {list(x.shape)} do not fit a patch embedding, which takes [batch, {channels}, "
                f"height, width] of at least {down} x {across}."
            )
        if not x.is_floating_point():
            raise DataError(f"pixels are floating-point numbers, scaled as the model was trained, not {x.dtype}.")
        height, width = x.shape[2] // down, x.shape[3] // across
        x = x[:, :, : height * down, : width * across].to(self.compute_dtype)
        patches = x.reshape(x.shape[0], x.shape[1], height, down, width, across).permute(0, 2, 4, 1, 3, 5)
        y = self.kernel(patches.reshape(x.shape[0], height * width, self.in_features))
        return y.transpose(1, 2).reshape(x.shape[0], self.out_features, height, width)


class QPointwise(QConvolution):
    """A 1x1 convolution: an int8 linear over the channels of each pixel.

    Maps [batch, channels, height, width] to [batch, out, height / stride, width / stride] (rounded up; all without the
    batch too), in the input's dtype and, as a convolution does, in its memory format. Channels last, where pixels are
    rows already, is the faster one.
    """

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a convolution of one pixel at a time over all channels; it may leave pixels out."""
        return (
            type(module) is nn.Conv2d
            and module.kernel_size == (1, 1)
            and module.padding in ((0, 0), "valid", "same")
            and module.groups == 1
        )

    @fx_leaf
    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3:  # one image without a batch
            return self.forward(x.unsqueeze(0)).squeeze(0)
        down, across = self.stride
        pixels = x[:, :, ::down, ::across].permute(0, 2, 3, 1)
        y = self.kernel(pixels).permute(0, 3, 1, 2)
        return y if x.is_contiguous(memory_format=torch.channels_last) else y.contiguous()
