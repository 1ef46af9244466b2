"""timm: the image models built of vision_transformer's `Block`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import ClipqError, QuantizationError, unknown_name
from ..spaces.tensors import tower_of
from . import tables
from .base import Host, build_skeleton, host_class
from .structure import differing, structure


class TimmHost(Host):
    name = "timm"
    blocks = tables.TIMM

    def recognises(self, module: nn.Module) -> bool:
        return host_class(module).__module__.startswith("timm.") and hasattr(module, "forward_features")

    def towers(self, module: nn.Module) -> tuple[str, ...]:
        return ("image",)

    def tower_of(self, module: nn.Module, name: str) -> str | None:
        return tower_of(self.name, name, ("image",))

    def kept_float(self, module: nn.Module, name: str) -> str | None:
        classifier = module.pretrained_cfg.get("classifier") or "head"
        return "classifier head" if name == classifier or name.startswith(f"{classifier}.") else None

    def encode_image(self, module: nn.Module, pixels: Tensor) -> Tensor:
        tokens = getattr(module, "pooled_tokens", module.forward_features)
        return module.forward_head(tokens(pixels), pre_logits=True)

    def encode_text(self, module: nn.Module, tokens: Tensor) -> Tensor:
        raise QuantizationError("timm models have no text tower; only encode_image works.")

    def whole(self, module: nn.Module, tower: str) -> nn.Module | None:
        return module

    def config(self, module: nn.Module) -> dict[str, Any]:
        settings = module.pretrained_cfg
        config = {
            "arch": settings["architecture"],
            "num_classes": module.num_classes,
            "global_pool": _pool_name(_pool(module)),
            "img_size": _image_size(module),
        }
        found, made = structure(module), structure(self.build(config))
        if found != made:
            raise ClipqError(
                f"this timm model is not a plain {config['arch']} ({differing(found, made)}): it was made with "
                "arguments it does not remember, so its file could not be read back. Use a named architecture."
            )
        return config

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        import timm

        known_trunk(config["arch"])
        options = {k: config[k] for k in ("num_classes", "global_pool", "img_size") if config.get(k) is not None}
        module = build_skeleton(lambda: timm.create_model(config["arch"], pretrained=False, **options))
        _check_divisible(module)
        return module

    def pixel_shape(self, module: nn.Module) -> tuple[int, int, int] | None:
        return (_channels(module), *(_image_size(module) or module.pretrained_cfg["input_size"][1:]))

    def any_size(self, module: nn.Module) -> bool:
        return takes_any_size(module)

    def preprocessing(self, module: nn.Module) -> dict[str, Any] | None:
        from timm.data import resolve_model_data_config

        settings = resolve_model_data_config(module)
        return {"kind": "timm", **{k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}}


def _check_divisible(module: nn.Module) -> None:
    """timm makes a model for images that are no whole number of patches, which then takes none."""
    patches = getattr(module, "patch_embed", None)
    sides, patch = _image_size(module), getattr(patches, "patch_size", None)
    whole = not getattr(patches, "strict_img_size", True) and not getattr(patches, "dynamic_img_pad", True)
    if whole and sides and patch and any(side % one for side, one in zip(sides, patch, strict=True)):
        raise ClipqError(f"images of {sides} are no whole number of patches of {list(patch)}.")


def known_trunk(arch: str) -> None:
    """Raise `UnknownNameError` unless timm itself defines `arch`; timm would ask the hub for "hf-hub:..."."""
    import timm

    if not (isinstance(arch, str) and ":" not in arch and timm.is_model(arch)):
        raise unknown_name("timm architecture", arch, timm.list_models("vit_*"))


def takes_any_size(module: nn.Module) -> bool:
    """Whether a timm model takes images of other sizes than its own; of patches, only one made for that does."""
    patches = getattr(module, "patch_embed", None)
    return getattr(patches, "img_size", None) is None or not getattr(patches, "strict_img_size", True)


def _channels(module: nn.Module) -> int:
    """Of the first convolution; timm's settings say 3 whatever `in_chans` was."""
    return next((part.in_channels for part in module.modules() if hasattr(part, "in_channels")), 3)


def _pool(module: nn.Module) -> object:
    """What `module` was told of pooling: a word (vision transformers), or a module of its own or of its head."""
    holder = module if hasattr(module, "global_pool") else getattr(module, "head", None)
    return getattr(holder, "global_pool", None)


def _pool_name(pool: object) -> str | None:
    """The word that makes it, or None where timm's default does."""
    return pool if isinstance(pool, str) else getattr(pool, "pool_type", None)


def _image_size(module: nn.Module) -> list[int] | None:
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    return None if size is None else list(size)
