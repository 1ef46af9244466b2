"""Tiny models whose units differ in how much they suffer, and data to choose their precisions by."""

from __future__ import annotations

import torch
from tiny_models import build
from torch import Tensor, nn

from clipq.hosts import find_host


def inputs(module: nn.Module, count: int = 24, seed: int = 7) -> dict[str, Tensor]:
    """Pixels and token ids for the towers that `module` has."""
    host, generator = find_host(module), torch.Generator().manual_seed(seed)
    given = {"image": torch.randn(count, *host.pixel_shape(module), generator=generator)}
    if "text" in host.towers(module):
        ids = torch.randint(2, 95, (count, host.context_length(module)), generator=generator)
        ids[:, -1] = 99 if host.name == "transformers" else 49407
        given["text"] = ids
    return given


def fragile(name: str = "open_clip CLIP", block: str = "visual.transformer.resblocks.1") -> nn.Module:
    """A tiny model with one block whose inputs have an outlier, which rows of int8 suffer from."""
    module = build(name)
    part = module.get_submodule(block)
    with torch.no_grad():
        for norm in (part.ln_1, part.ln_2):
            norm.weight[3] *= 40
        for weight in (part.attn.in_proj_weight, part.mlp.c_fc.weight):
            weight[:, 3] /= 40
    return module
