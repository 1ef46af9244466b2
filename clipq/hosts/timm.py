"""timm: the image models built of vision_transformer's `Block`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..errors import ClipqError, QuantizationError, unknown_name
from ..modules.state import shapes
from ..towers.blocks import BlockNames
from ..towers.rows import Tower, blocks_of
from .base import Host, build_skeleton, is_class

_BLOCK = BlockNames(
    ln_1="norm1",
    attention="attn",
    qkv=("attn.qkv.weight",),
    out_proj="attn.proj.weight",
    ls_1="ls1",
    ln_2="norm2",
    fc1="mlp.fc1.weight",
    act="mlp.act",
    fc2="mlp.fc2.weight",
    ls_2="ls2",
    containers=frozenset(("Attention", "Mlp")),
)
TIMM_BLOCKS = {"Block": _BLOCK}


class TimmHost(Host):
    name = "timm"
    blocks = TIMM_BLOCKS

    def recognises(self, module: nn.Module) -> bool:
        return type(module).__module__.startswith("timm.") and hasattr(module, "forward_features")

    def towers(self, module: nn.Module) -> tuple[str, ...]:
        return ("image",)

    def tower_of(self, module: nn.Module, name: str) -> str | None:
        return "image"

    def kept_float(self, module: nn.Module, name: str) -> str | None:
        classifier = module.pretrained_cfg.get("classifier") or "head"
        return "classifier head" if name == classifier or name.startswith(f"{classifier}.") else None

    def encode_image(self, module: nn.Module, pixels: Tensor) -> Tensor:
        return module.forward_head(module.forward_features(pixels), pre_logits=True)

    def encode_text(self, module: nn.Module, tokens: Tensor) -> Tensor:
        raise QuantizationError("timm models have no text tower; only encode_image works.")

    def image_tower(self, module: nn.Module) -> Tower | None:
        return trunk_tower(module, partial(module.forward_head, pre_logits=True), (module,))

    def config(self, module: nn.Module) -> dict[str, Any]:
        settings = module.pretrained_cfg
        config = {
            "arch": settings["architecture"],
            "num_classes": module.num_classes,
            "global_pool": getattr(module, "global_pool", ""),
            "img_size": _image_size(module),
        }
        if shapes(self.build(config)) != shapes(module):
            raise ClipqError(
                f"this timm model is not a plain {config['arch']}: it was made with arguments it does not remember, "
                "so its file could not be read back. Use a named architecture."
            )
        return config

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        import timm

        known_trunk(config["arch"])
        options = {k: config[k] for k in ("num_classes", "global_pool", "img_size") if config.get(k) is not None}
        return build_skeleton(lambda: timm.create_model(config["arch"], pretrained=False, **options))

    def pixel_shape(self, module: nn.Module) -> tuple[int, int, int] | None:
        return (3, *(_image_size(module) or module.pretrained_cfg["input_size"][1:]))

    def preprocessing(self, module: nn.Module) -> dict[str, Any] | None:
        from timm.data import resolve_model_data_config

        settings = resolve_model_data_config(module)
        return {"kind": "timm", **{k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}}


def trunk_tower(trunk: nn.Module, finish: Callable[[Tensor], Tensor], parts: tuple[nn.Module, ...]) -> Tower | None:
    """The tower of a timm vision transformer. `finish`: from normed tokens [batch, tokens, width] to [batch, out]."""
    if not is_class(trunk, "timm.models.vision_transformer.VisionTransformer") or not trunk.global_pool:
        return None
    blocks = blocks_of(trunk.blocks, TIMM_BLOCKS)
    one_token = trunk.global_pool == "token" and trunk.attn_pool is None
    head = partial(_trunk_head, trunk, finish, one_token)
    return None if blocks is None else Tower(blocks, partial(_embed, trunk), head, parts, 0 if one_token else None)


def _embed(trunk: nn.Module, pixels: Tensor) -> Tensor:
    return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(pixels))))


def _trunk_head(trunk: nn.Module, finish: Callable[[Tensor], Tensor], one_token: bool, x: Tensor) -> Tensor:
    return finish(trunk.norm(x[:, None] if one_token else x))


def known_trunk(arch: str) -> None:
    """Raise `UnknownNameError` unless timm itself defines `arch`; timm would ask the hub for "hf-hub:..."."""
    import timm

    if not (isinstance(arch, str) and ":" not in arch and timm.is_model(arch)):
        raise unknown_name("timm architecture", arch, timm.list_models("vit_*"))


def _image_size(module: nn.Module) -> list[int] | None:
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    return None if size is None else list(size)
