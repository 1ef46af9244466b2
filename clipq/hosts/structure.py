"""What a model computes besides its weights, as it stands: shapes, kinds of modules, and what their forwards read.

A configuration says what a model was made of; this says what it is. Where both are there they are compared, since a
file keeps the configuration alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from ..modules.state import shapes
from .base import host_class

_READ = (
    ("num_heads", "num_key_value_heads", "eps", "approximate", "is_causal")
    + ("pool_type", "text_pool_type", "attn_pool_type", "global_pool", "pool", "use_head", "use_pooler_output")
    + ("eos_id", "text_eos_id", "eos_token_id", "pad_id", "padding_idx", "use_pad_mask", "correct_cls_mask")
    + ("final_ln_after_pool", "exclude_first_token", "cls_token_position", "num_prefix_tokens", "no_embed_class")
    + ("pool_include_prefix", "rotate_half", "gate_last")
)
"""Attributes that decide what forwards of open_clip, timm and transformers compute."""
_OF_TORCH = ("num_heads", "eps")
_OF_TRAINING = "Drop"
"""In the names of classes that compute nothing where nobody trains, whatever they are set to."""
_UNTOLD = ("Identity", _OF_TRAINING, "Attention")
"""In the names of classes that are no activation, or that clipq puts its own in place of."""


def structure(module: nn.Module, counts: Callable[[str], bool] = lambda name: True) -> dict[str, Any]:
    """JSON values by name, which quantizing does not change. counts: whether what has this name is asked for."""
    told = {**shapes(module)}
    for path, part in module.named_modules():
        told.update((f"{path}.{key}" if path else key, value) for key, value in _told(part))
    return {name: list(one) if isinstance(one, tuple) else one for name, one in told.items() if counts(name)}


def differing(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The first difference of two structures, in words."""
    name = next(name for name in {**one, **other} if name not in one or name not in other or one[name] != other[name])
    return f"{name} is {one.get(name)!r:.60}, not {other.get(name)!r:.60}"


def _told(part: nn.Module) -> Iterator[tuple[str, Any]]:
    kind = host_class(part)
    if _OF_TRAINING in kind.__name__:
        return
    if kind.__module__.startswith("torch."):
        yield from _of_torch(part, kind)
    elif not any(word in kind.__name__ for word in _UNTOLD):
        yield "class", kind.__name__.removesuffix("Fp32")  # open_clip's norm of a half model, which `prepare` takes out
    own = vars(part)  # asking a module for what it has not is slow, and this is asked of thousands
    for key in _OF_TORCH if kind.__module__.startswith("torch.") else _READ:
        if isinstance(value := own.get(key), bool | int | float | str):
            yield key, value
    if (own.get("attn_mask") if "attn_mask" in own else part._buffers.get("attn_mask")) is not None:
        yield "attn_mask", True


def _of_torch(part: nn.Module, kind: type) -> Iterator[tuple[str, Any]]:
    """An activation or a pooling, whole: they have nothing but their settings."""
    alone = not part._parameters and not part._buffers and not part._modules
    if alone and type(part) is kind and not any(word in kind.__name__ for word in _UNTOLD):
        yield "class", repr(part)
