"""Tiny models as towers: inputs for them, what the host's own layers make of these, and how a tower is run."""

from __future__ import annotations

import warnings

import torch
from tiny_models import build
from torch import nn

from clipq.arithmetic.schemes import Scheme
from clipq.errors import ClipqWarning
from clipq.methods.quantization import quantize
from clipq.models import Model

ONE, ALL, CAUSAL, BOTH, HOST, NONE = "one token", "all tokens", "causal", "both ways", "host", "no such tower"

BOUNDS = {
    "bf16": 2e-2,
    "fp16": 2e-3,
    "int8": 1e-2,
    "int8-symmetric": 1e-2,
    "int8-weight-only": 1e-5,
    "int8 by the reference": 1e-2,
}
"""Of the difference's length to an embedding's: rounding may tip a value over the edge of a step."""


def model(name: str, precision: str | Scheme = "fp32") -> Model:
    """A tiny model with no weight at the value it starts from, which would hide a norm or a bias left out."""
    module = build(name)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipqWarning)
        return quantize(Model(module), precision)


def pixels(of: Model, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, *of.host.pixel_shape(of.module))


def tokens(of: Model) -> torch.Tensor:
    """Prompts of mixed lengths: some words, none at all, the whole context, and one that never ends."""
    length = of.host.context_length(of.module)
    ids = torch.randint(2, 90, (5, length))
    start, end = (98, 99) if of.host.name == "transformers" else (49406, 49407)
    ids[:, 0] = start
    for row, place in enumerate((4, 1, length - 1, 9)):
        ids[row, place], ids[row, place + 1 :] = end, 0
    return ids


@torch.inference_mode()
def by_layers(of: Model, x: torch.Tensor) -> torch.Tensor:
    """What the host's own forward makes of it, module by module: a hook on every linear asks for that."""
    handles = [part.register_forward_hook(lambda *_: None) for part in of.module.modules() if not part._modules]
    encode = of.host.encode_image if x.is_floating_point() else of.host.encode_text
    found = encode(of.module, x.to(of._dtype("image")) if x.is_floating_point() else x).float()
    for handle in handles:
        handle.remove()
    return found


def by_model(of: Model, x: torch.Tensor) -> torch.Tensor:
    return of.encode_image(x) if x.is_floating_point() else of.encode_text(x)


def inputs(of: Model) -> list[torch.Tensor]:
    return [*([pixels(of)] if "image" in of.towers else []), *([tokens(of)] if "text" in of.towers else [])]


def how(of: Model, name: str) -> str:
    if name not in of.towers:
        return NONE
    tower = of.host.tower(of.module, name)
    if tower is None:
        return HOST
    if name == "text":
        return CAUSAL if tower.causal else BOTH
    return ALL if tower.pool is None else ONE


def counted(linear: nn.Module) -> list[int]:
    """The rows that each call of `linear` gets, from now on. A hook would bring back the host's forward."""
    seen, forward = [], linear.forward

    def count(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[:-1].numel())
        return forward(x)

    linear.forward = count
    return seen
