"""LayerNorms outside of the blocks whose result is quantized: computed in float64 and rounded once.

Two ways to compute a LayerNorm in float32 differ in the last bit, which may tip a value over the edge of an int8 step,
and all blocks after it then differ. Rounded from float64 the result is the same number whoever computes it: torch, a
compiled graph, or the native library (csrc/ends.cpp), which the runtime without torch runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch.nn.functional as F
from open_clip import transformer as open_clip
from timm import layers as timm
from torch import Tensor, nn

from ...modules.convolutions import QPatchEmbed
from ...modules.layers import QLinear
from ...modules.tracing import fx_leaf
from ..base import host_class

_BEFORE = ("ln_pre", "pre_layrnorm", "norm_pre")
"""Of towers, as open_clip, transformers and timm call the norm before the blocks."""
_POOLED = (("attn_pool", "norm", ("attn_pool.norm",)), ("head", "post_layernorm", ("head.layernorm",)))
"""A pool with int8 linears, the norm of what it reads, and those inside of it: timm's and transformers' SigLIP."""


class Exact:
    """Mixed into a LayerNorm."""

    @fx_leaf
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
    """Put the exact norms in place of a tower's, where int8 linears read what they give, and only there."""
    for norm, is_read in _outside(tower):
        exact = _EXACT.get(host_class(norm))
        if exact is not None and norm.weight is not None and norm.bias is not None:
            norm.__class__ = exact if is_read else host_class(norm)


def _outside(tower: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """The norms outside of the blocks, and whether int8 linears read what each gives."""
    blocks = is_int8(part for part in tower.modules() if not isinstance(part, QPatchEmbed))
    yield from ((getattr(tower, name), blocks) for name in _BEFORE if hasattr(tower, name))
    for name, norm, inner in _POOLED:
        pool = getattr(tower, name, None)
        if isinstance(pool, nn.Module) and hasattr(tower, norm):
            inside = [tower.get_submodule(one) for one in inner if _has(tower, one)]
            yield from ((one, is_int8(pool.modules())) for one in (getattr(tower, norm), *inside))


def is_int8(parts: Iterable[nn.Module]) -> bool:
    """Whether a linear among these quantizes its inputs."""
    return any(isinstance(part, QLinear) and part.activations is not None for part in parts)


def _has(tower: nn.Module, name: str) -> bool:
    holder, _, last = name.rpartition(".")
    return hasattr(tower.get_submodule(holder), last)
