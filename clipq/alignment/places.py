"""Where a tower ends in a linear that a map can be folded into, by library and kind of tower."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import QuantizationError
from ..hosts.base import is_class
from ..models import Model
from ..modules.layers import QLinear

_ANYWAY = "map the vectors themselves before they are stored or searched with: vectors = found.map(vectors)"


@dataclass(frozen=True)
class Place:
    """A tower's last linear: the attribute `name` of the module `owner`, called `path` in the model.

    norm: the LayerNorm whose result it reads as it is, whose bias can take an offset where the linear has no bias.
    settings: what the configuration says of it, as (path of keys, value), once there is a linear with a bias; None
    where a bias cannot be said.
    """

    owner: nn.Module
    name: str
    path: str
    norm: nn.Module | None = None
    settings: Mapping[tuple[str, ...], Any] | None = None

    @property
    def held(self) -> Any:
        """A Parameter [in, out], an `nn.Linear`, a `QLinear`, or None where the tower ends without a linear."""
        return getattr(self.owner, self.name, None)

    @property
    def takes_offset(self) -> bool:
        has_bias = isinstance(self.held, (nn.Linear, QLinear)) and self.held.bias is not None
        return has_bias or self.settings is not None or getattr(self.norm, "bias", None) is not None

    def weight(self) -> Tensor | None:
        """float64 [out, in], in the main memory: not every device has float64; None for no linear."""
        held = self.held
        if held is None:
            return None
        return in_float64(held).T if isinstance(held, nn.Parameter) else in_float64(held.weight)


def place_of(model: Model, tower: str) -> Place:
    """Raises `QuantizationError`, saying why and what to do instead, for a tower that no map can be folded into."""
    found = _FIND[model.host.name](model.module, tower)
    if isinstance(found, str):
        kind = type(model.module).__name__
        raise QuantizationError(f"no map can be folded into the {tower} tower of this {kind}: {found}; {_ANYWAY}.")
    return found


def _open_clip(module: nn.Module, tower: str) -> Place | str:
    return _open_clip_image(module.visual) if tower == "image" else _open_clip_text(module)


def _open_clip_image(visual: nn.Module) -> Place | str:
    if is_class(visual, "open_clip.transformer.VisionTransformer"):
        one_use = not visual.output_tokens and getattr(visual, "attn_pool_contrastive", None) is None
        proj = isinstance(visual.proj, nn.Parameter)
        return Place(visual, "proj", "visual.proj", visual.ln_post if one_use else None) if proj else _NOTHING
    if not is_class(visual, "open_clip.timm_model.TimmModel"):
        return f"its visual part is a {type(visual).__name__}"
    with_bias = {("vision_cfg", "timm_proj_bias"): True}
    if hasattr(visual.head, "mlp"):
        return Place(visual.head.mlp, "fc2", "visual.head.mlp.fc2", None, with_bias)
    if isinstance(getattr(visual.trunk, "head", None), (nn.Linear, QLinear)):
        return Place(visual.trunk, "head", "visual.trunk.head")
    if hasattr(visual.head, "proj") or not len(visual.head):
        return Place(
            visual.head, "proj", "visual.head.proj", None, {**with_bias, ("vision_cfg", "timm_proj"): "linear"}
        )
    return f"its trunk ends in {', '.join(name for name, _ in visual.head.named_children())}"


def _open_clip_text(module: nn.Module) -> Place | str:
    text, path = (module.text, "text.") if hasattr(module, "text") else (module, "")
    if hasattr(text, "text_projection"):
        held = text.text_projection
        return _NOTHING if held is None else Place(text, "text_projection", f"{path}text_projection", text.ln_final)
    last = getattr(text, "proj", None)  # of a tower of transformers
    if isinstance(last, nn.Sequential) and len(last):
        return Place(last, str(len(last) - 1), f"text.proj.{len(last) - 1}")
    return Place(text, "proj", "text.proj") if isinstance(last, (nn.Linear, QLinear)) else _NOTHING


def _transformers(module: nn.Module, tower: str) -> Place | str:
    attribute, inner, norm = {
        "image": ("visual_projection", "vision_model", "post_layernorm"),
        "text": ("text_projection", "text_model", "final_layer_norm"),
    }[tower]
    whole = getattr(module, inner, module)
    if isinstance(getattr(module, attribute, None), nn.Linear):
        return Place(module, attribute, attribute, getattr(whole, norm, None))
    if tower == "text" and isinstance(getattr(whole, "head", None), nn.Linear):  # SigLIP's
        return Place(whole, "head", "head" if whole is module else f"{inner}.head")
    return "its head adds to what it reads, and ends in no projection" if hasattr(whole, "head") else _NOTHING


def _timm(module: nn.Module, tower: str) -> Place | str:
    return _NOTHING


_NOTHING = "it ends in a norm, and in no projection"
_FIND: Mapping[str, Callable[[nn.Module, str], Place | str]] = {
    "open_clip": _open_clip,
    "timm": _timm,
    "transformers": _transformers,
}


def in_float64(tensor: Tensor) -> Tensor:
    """On the CPU: maps are float64 there, and MPS has none."""
    return tensor.detach().cpu().double()


_LONGEST = 4.0  # times a norm's usual output: what is longer would drown that in its own rounding


def norm_offset(norm: nn.Module | None, weight: Tensor, offset: Tensor) -> Tensor | None:
    """What to add to the bias of `norm` so that `weight` [out, in] after it gives `offset` [out] more; None if nothing
    of a reasonable length does.

    The shortest such change: weight's pseudo-inverse times the offset, float64.
    """
    if getattr(norm, "bias", None) is None or norm.weight is None:
        return None
    change = torch.linalg.lstsq(weight, offset[:, None], driver="gelsd").solution[:, 0]
    exact = (weight @ change - offset).norm() <= 1e-9 * offset.norm()
    return change if exact and change.norm() <= _LONGEST * in_float64(norm.weight).norm() else None
