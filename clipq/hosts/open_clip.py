"""open_clip: CLIP, CustomTextCLIP and CoCa, with native towers, timm trunks or Hugging Face text towers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from ..errors import ClipqError, SchemeError
from ..spaces.tensors import tower_of
from . import tables
from .base import Host, build_skeleton, is_class
from .open_clip_text import NOT_OPEN_CLIPS, TEXT_CONFIG, text_tower_at_hand
from .structure import structure
from .timm import known_trunk, takes_any_size

_PROJECTIONS = ("visual.proj", "text_projection", "text.text_projection", "visual.head.proj", "text.proj")


class OpenClipHost(Host):
    name = "open_clip"
    blocks = tables.ALL

    def recognises(self, module: nn.Module) -> bool:
        parts = hasattr(module, "visual") and (hasattr(module, "transformer") or hasattr(module, "text"))
        return parts and hasattr(module, "encode_image") and hasattr(module, "encode_text")

    def towers(self, module: nn.Module) -> tuple[str, ...]:
        return ("image", "text")

    def tower_of(self, module: nn.Module, name: str) -> str | None:
        return tower_of(self.name, name, ("image", "text"))

    def kept_float(self, module: nn.Module, name: str) -> str | None:
        if any(name == projection or name.startswith(f"{projection}.") for projection in _PROJECTIONS):
            return "output projection"
        if name.startswith("visual.attn_pool.attn"):  # CoCa's; its keys have another width than its queries
            return "attentional pooler"
        return "captioning decoder" if name.startswith("text_decoder") else None

    def encode_image(self, module: nn.Module, pixels: Tensor) -> Tensor:
        return module.encode_image(pixels, normalize=False)

    def encode_text(self, module: nn.Module, tokens: Tensor) -> Tensor:
        return module.encode_text(_to_context(module, tokens, self.context_length(module)), normalize=False)

    def whole(self, module: nn.Module, tower: str) -> nn.Module | None:
        if tower == "text":
            return getattr(module, "text", module)
        visual = module.visual
        return visual.trunk if is_class(visual, "open_clip.timm_model.TimmModel") else visual

    def config(self, module: nn.Module) -> dict[str, Any]:
        found = structure(module)
        for arch, config in _candidates(module):
            if structure(self.build(config)) == found:
                return {"arch": arch, **config}
        raise ClipqError(
            "the architecture of this open_clip model is none of open_clip's named ones, so its file could not be read "
            "back. Load it through clipq.load(name, precision='fp32'), or give its configuration: "
            "clipq.Model(model, config=model_cfg)."
        )

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        import open_clip

        text_config = config.get(TEXT_CONFIG)
        config = deepcopy({k: v for k, v in config.items() if k not in NOT_OPEN_CLIPS})
        custom = config.pop("custom_text", False) or "hf_model_name" in config.get("text_cfg", {})
        name = ("CoCa" if "multimodal_cfg" in config else "CustomTextCLIP") if custom else "CLIP"
        _forbid_downloads(config)
        known = inspect.signature(getattr(open_clip, name)).parameters
        if unknown := sorted(set(config) - set(known)):
            raise SchemeError(
                f"open_clip's {name} takes no {', '.join(unknown)}; the configuration is for another version."
            )
        with text_tower_at_hand(config["text_cfg"], text_config) as repository:
            module = build_skeleton(lambda: getattr(open_clip, name)(**deepcopy(config)))
        if repository:
            module.text.config.name_or_path = repository
        return module

    def preprocessing(self, module: nn.Module) -> dict[str, Any] | None:
        from open_clip.model import get_model_preprocess_cfg

        settings = get_model_preprocess_cfg(module)
        return {"kind": "open_clip", **settings} if "mean" in settings else None

    def prepare(self, module: nn.Module) -> None:
        """Put open_clip's plain `LayerNorm` where a model made for fp16 or bf16 has `LayerNormFp32`.

        That one takes float32 parameters only, and a model rebuilt from its configuration has the plain one.
        """
        from open_clip.transformer import LayerNorm, LayerNormFp32

        for part in [m for m in module.modules() if not isinstance(m, LayerNormFp32)]:
            for name, norm in part.named_children():
                if isinstance(norm, LayerNormFp32):
                    plain = LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=norm.elementwise_affine)
                    plain._parameters = norm._parameters
                    setattr(part, name, plain)

    def pixel_shape(self, module: nn.Module) -> tuple[int, int, int] | None:
        size = module.visual.image_size
        return (3, *size) if isinstance(size, (tuple, list)) else (3, size, size)

    def any_size(self, module: nn.Module) -> bool:
        trunk = self.whole(module, "image")
        return trunk is not module.visual and takes_any_size(trunk)

    def context_length(self, module: nn.Module) -> int | None:
        return (module if hasattr(module, "context_length") else module.text).context_length or None

    def vocabulary(self, module: nn.Module) -> int | None:
        text = getattr(module, "text", module)
        table = getattr(text, "token_embedding", None)  # a tower of transformers has its own configuration instead
        return getattr(getattr(text, "config", None), "vocab_size", None) if table is None else table.num_embeddings


def _to_context(module: nn.Module, ids: Tensor, context: int) -> Tensor:
    """`ids` [batch, tokens] with padding up to the context, where the embedding is read before it.

    open_clip's causal towers take the whole context only; its tokenizers pad with 0.
    """
    text = getattr(module, "text", module)
    pool = getattr(text, "pool_type", getattr(text, "text_pool_type", None))
    before = getattr(text, "attn_mask", None) is not None and getattr(text, "cls_emb", None) is None
    missing = context - ids.shape[1]
    return nn.functional.pad(ids, (0, missing)) if missing > 0 and before and pool in ("argmax", "eos") else ids


def _forbid_downloads(config: dict[str, Any]) -> None:
    """Building an architecture must fetch no weights: neither a timm trunk's nor a Hugging Face text tower's."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if vision.get("timm_model_name"):
        known_trunk(vision["timm_model_name"])
        vision["timm_model_pretrained"] = False
    if text.get("hf_model_name"):
        text["hf_model_pretrained"] = False


def _candidates(module: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """open_clip's named configurations that say of themselves what can be seen on `module` without building them."""
    import open_clip

    for arch in open_clip.list_models():
        config = open_clip.get_model_config(arch)
        if "hf_model_name" not in config["text_cfg"] and _fits(module, config["vision_cfg"], config):
            yield arch, config


def _fits(module: nn.Module, vision: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether embedding width, image size, kind of image tower and the table of tokens are those of `module`."""
    size, image_size = vision.get("image_size", 224), getattr(module.visual, "image_size", None)
    if _embed_dim(module) not in (None, config["embed_dim"]) or image_size not in (None, size, (size, size)):
        return False
    of_timm, resnet = bool(vision.get("timm_model_name")), isinstance(vision.get("layers"), (list, tuple))
    if of_timm != is_class(module.visual, "open_clip.timm_model.TimmModel"):
        return False
    if not of_timm and resnet != is_class(module.visual, "open_clip.modified_resnet.ModifiedResNet"):
        return False
    table = getattr(getattr(module, "text", module), "token_embedding", None)
    text = config["text_cfg"]
    return table is None or (text.get("vocab_size", 49408), text.get("width", 512)) == tuple(table.weight.shape)


def _embed_dim(module: nn.Module) -> int | None:
    projection = module.text_projection if hasattr(module, "text_projection") else module.text.text_projection
    if projection is None:
        return getattr(module.visual, "output_dim", None)
    return projection.out_features if isinstance(projection, nn.Linear) else projection.shape[-1]
