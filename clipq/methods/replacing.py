"""Which modules of a host become quantized ones, and their replacement in place."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..arithmetic.schemes import Scheme
from ..errors import CheckpointError, QuantizationError
from ..hosts import Host
from ..modules.attention import QMultiheadAttention, QOpenClipAttention
from ..modules.convolutions import QPatchEmbed, QPointwise
from ..modules.layers import QEmbedding, QLinear
from .recipes import Recipe

# Kind of replacement, as stored in a checkpoint, and how it is made from (host module, scheme, name).
REPLACEMENTS = {
    "multihead_attention": QMultiheadAttention,
    "open_clip_attention": QOpenClipAttention,
    "linear": QLinear.from_float,
    "patch_embedding": QPatchEmbed.from_float,
    "pointwise_convolution": QPointwise.from_float,
    "embedding": QEmbedding.from_float,
}


def plan(host: Host, module: nn.Module, schemes: Mapping[str, Scheme]) -> dict[str, str]:
    """Which submodules to replace, and the kind of each replacement, outermost first.

    Raises `QuantizationError` for a tower that is to be int8 and of which nothing would be.
    """
    chosen: dict[str, str] = {}
    for name, part in module.named_modules():
        scheme = schemes.get(host.tower_of(module, name) or "")
        inside = any(name.startswith(f"{outer}.") for outer, kind in chosen.items() if kind.endswith("attention"))
        if not name or scheme is None or scheme.is_float or inside or host.kept_float(module, name):
            continue
        own = scheme.at(name)
        if not own.is_float and (kind := _kind(part, own)):
            chosen[name] = kind
    for tower, scheme in schemes.items():
        if not scheme.is_float and not any(host.tower_of(module, name) == tower for name in chosen):
            raise _nothing_to_quantize(module, tower, scheme)
    return chosen


def _nothing_to_quantize(module: nn.Module, tower: str, scheme: Scheme) -> QuantizationError:
    return QuantizationError(
        f"nothing of the {tower} tower of this {type(module).__name__} can become {scheme.name!r}: it has no linear, "
        "attention, embedding, patch embedding or 1x1 convolution that is to be quantized. Give that tower a float "
        f"precision, such as precision={{{tower!r}: 'fp16'}}, and name the other tower's beside it if there is one."
    )


def _kind(part: nn.Module, scheme: Scheme) -> str | None:
    if QMultiheadAttention.fits(part):
        return "multihead_attention"
    if QOpenClipAttention.fits(part):
        return "open_clip_attention"
    if type(part) is nn.Linear:
        return "linear"
    if type(part) is nn.Embedding and scheme.embeddings is not None:
        return "embedding"
    if QPatchEmbed.fits(part):
        return "patch_embedding"
    return "pointwise_convolution" if QPointwise.fits(part) else None


def rebuild(module: nn.Module, host: Host, recipe: Recipe) -> None:
    """Put empty quantized modules into a skeleton on the meta device, as `recipe` (from a file) says.

    Raises `CheckpointError` if the recipe does not fit the architecture.
    """
    for name, kind in recipe.modules.items():
        try:
            fits = _kind(module.get_submodule(name), recipe.at(host.tower_of(module, name), name)) == kind
        except (AttributeError, KeyError):
            fits = False
        if not fits:
            raise CheckpointError(f"the recipe makes {name!r} a {kind!r}, which does not fit the architecture.")
        install(module, {name: replacement(module, name, kind, host, recipe)})


def replacement(module: nn.Module, name: str, kind: str, host: Host, recipe: Recipe) -> nn.Module:
    return REPLACEMENTS[kind](module.get_submodule(name), recipe.at(host.tower_of(module, name), name), name)


def install(module: nn.Module, replacements: Mapping[str, nn.Module]) -> None:
    for name, replacement in replacements.items():
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, replacement)
