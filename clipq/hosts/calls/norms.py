"""LayerNorms outside of the blocks whose result is quantized: computed in float64 and rounded once.

Two ways to compute a LayerNorm in float32 differ in the last bit, which may tip a value over the edge of an int8 step,
and all blocks after it then differ. Rounded from float64 the result is the same number whoever computes it: torch, a
compiled graph, or the native library (csrc/ends.cpp), which the runtime without torch runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from open_clip import transformer as open_clip
from timm import layers as timm
from torch import Tensor, nn

from ...modules.convolutions import QPatchEmbed
from ...modules.layers import QLinear

_BEFORE = ("ln_pre", "pre_layrnorm", "norm_pre")
"""Of towers, as open_clip, transformers and timm call the norm before the blocks."""
_POOLED = (("attn_pool", "norm", ("attn_pool.norm",)), ("head", "post_layernorm", ("head.layernorm",)))
"""A pool with int8 linears, the norm of what it reads, and those inside of it: timm's and transformers' SigLIP."""


class Exact:
    """Mixed into a LayerNorm."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu:
            return super().forward(x)
        weight, bias = self.weight.double(), self.bias.double()
        return F.layer_norm(x.double(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class LayerNorm(Exact, nn.LayerNorm):
    pass


class OpenClipLayerNorm(Exact, open_clip.LayerNorm):
    pass


class TimmLayerNorm(Exact, timm.LayerNorm):
    pass


_EXACT = {nn.LayerNorm: LayerNorm, open_clip.LayerNorm: OpenClipLayerNorm, timm.LayerNorm: TimmLayerNorm}


def install(tower: nn.Module) -> None:
    """Put the exact norms in place of a tower's, where int8 linears read what they give. Again changes nothing."""
    for norm in _quantized(tower):
        exact = _EXACT.get(type(norm))
        if exact is not None and norm.weight is not None and norm.bias is not None:
            norm.__class__ = exact


def _quantized(tower: nn.Module) -> Iterator[nn.Module]:
    linears = [part for part in tower.modules() if isinstance(part, QLinear) and not isinstance(part, QPatchEmbed)]
    if any(linear.activations is not None for linear in linears):
        yield from (getattr(tower, name) for name in _BEFORE if hasattr(tower, name))
    for pool, norm, inner in _POOLED:
        inside = getattr(tower, pool, None)
        parts = inside.modules() if isinstance(inside, nn.Module) else ()
        if hasattr(tower, norm) and any(isinstance(part, QLinear) and part.activations is not None for part in parts):
            yield getattr(tower, norm)
            yield from (tower.get_submodule(name) for name in inner)
