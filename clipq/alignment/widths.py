"""A model whose embeddings get another width: what its configuration says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import QuantizationError
from ..models import Model


def with_width(model: Model, config: dict[str, Any], width: int) -> None:
    """Say in `config`, and in the module where it says so itself, that embeddings are of `width`.

    Raises `QuantizationError` for a host whose embeddings are as wide as its blocks.
    """
    change = _CHANGES.get(model.host.name)
    if change is None or not change(model.module, config, width):
        raise QuantizationError(
            f"embeddings of this {type(model.module).__name__} cannot become {width} wide: its configuration does not "
            "say a width of its own for them."
        )


def _open_clip(module: nn.Module, config: dict[str, Any], width: int) -> bool:
    config["embed_dim"] = width
    return True


def _transformers(module: nn.Module, config: dict[str, Any], width: int) -> bool:
    if "projection_dim" not in config:
        return False
    parts = [config, *(config[key] for key in ("vision_config", "text_config") if isinstance(config.get(key), dict))]
    own = [module.config, *(getattr(module.config, key, None) for key in ("vision_config", "text_config"))]
    for part in parts:
        part["projection_dim"] = width
    for part in filter(None, own):
        part.projection_dim = width
    module.projection_dim = width
    return True


_CHANGES: Mapping[str, Callable[[nn.Module, dict[str, Any], int], bool]] = {
    "open_clip": _open_clip,
    "transformers": _transformers,
}
