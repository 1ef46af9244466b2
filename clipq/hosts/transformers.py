"""transformers: CLIP, MetaCLIP 2, SigLIP and SigLIP 2 with both towers or one; ViT, DeiT, DINOv2 and DINOv3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError, QuantizationError
from ..spaces.tensors import tower_of
from . import tables
from .base import Host, build_skeleton, host_class

# Their positions are learned for one size; "interpolate" is asked for by call.
_ONE_SIZE = ("clip", "metaclip_2", "siglip", "vit", "deit")
_OF_FILES = ("quantization_config", "transformers_weights", "clipq_version")
_WRONG_END = 2  # of CLIPs that were saved before transformers knew better
_HEADS = ("visual_projection", "text_projection", "classifier", "cls_classifier", "distillation_classifier")


class TransformersHost(Host):
    name = "transformers"
    blocks = tables.TRANSFORMERS

    def recognises(self, module: nn.Module) -> bool:
        return host_class(module).__module__.startswith("transformers.") and hasattr(module, "config")

    def towers(self, module: nn.Module) -> tuple[str, ...]:
        kind = type(module).__name__
        if hasattr(module, "get_image_features") and hasattr(module, "get_text_features"):
            return ("image", "text")
        return ("text",) if "Text" in kind else ("image",)

    def tower_of(self, module: nn.Module, name: str) -> str | None:
        return tower_of(self.name, name, self.towers(module))

    def kept_float(self, module: nn.Module, name: str) -> str | None:
        parts = name.split(".")
        if parts[0] in _HEADS:
            return "output projection" if "projection" in parts[0] else "classifier head"
        # SigLIP's text projection is called `head` and belongs to the text tower.
        if parts[:2] == ["text_model", "head"] or (parts[0] == "head" and self.towers(module) == ("text",)):
            return "output projection"
        return "position embedding" if "position_embedding" in parts else None

    def encode_image(self, module: nn.Module, pixels: Tensor | Mapping[str, Tensor]) -> Tensor:
        inputs = pixels if isinstance(pixels, Mapping) else {"pixel_values": pixels}
        _refuse_headless(module)
        if hasattr(module, "get_image_features"):
            return _features(module.get_image_features(**inputs))
        base = _embedder(module)
        if hasattr(base, "class_token") and (token := base.class_token(pixels)) is not None:
            return token
        output = base(**inputs)
        if hasattr(output, "image_embeds"):
            return output.image_embeds
        if hasattr(output, "feature_maps"):  # a backbone has no embedding; this one is only counted
            return output.feature_maps[-1]
        if _pools(module):
            return output.pooler_output
        return output.last_hidden_state[:, 0]

    def encode_text(self, module: nn.Module, tokens: Tensor) -> Tensor:
        if self.towers(module) == ("image",):
            raise QuantizationError(f"{type(module).__name__} has no text tower; only encode_image works.")
        if hasattr(module, "get_text_features"):
            return _features(module.get_text_features(input_ids=tokens))
        output = module(input_ids=tokens)
        return output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output

    def whole(self, module: nn.Module, tower: str) -> nn.Module | None:
        part = {"image": "vision_model", "text": "text_model"}[tower]
        return getattr(module, part, _whole_base(module))

    def config(self, module: nn.Module) -> dict[str, Any]:
        return {
            "class": type(module).__name__,
            "model_type": module.config.model_type,
            **_architecture(_json(module.config.to_dict())),
        }

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        import transformers

        values = dict(config)
        kind = getattr(transformers, str(values.pop("class", "")), None)
        if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
            raise CheckpointError(
                f"{config.get('class')!r} is not a model class of transformers {transformers.__version__}."
            )
        settings = kind.config_class.from_dict(_without_code(values))
        return build_skeleton(lambda: kind(settings))

    def finished(self, module: nn.Module) -> None:
        from .calls import install_saving

        install_saving(module)

    def preprocessing(self, module: nn.Module) -> dict[str, Any] | None:
        return None

    def pixel_shape(self, module: nn.Module) -> tuple[int, int, int] | None:
        settings = getattr(module.config, "vision_config", module.config)
        size = getattr(settings, "image_size", None)  # SigLIP 2 NaFlex takes patches of any size and has none
        size = (size, size) if isinstance(size, int) else size
        return None if size is None else (getattr(settings, "num_channels", 3), *size)

    def any_size(self, module: nn.Module) -> bool:
        settings = getattr(module.config, "vision_config", module.config)
        return settings.model_type.removesuffix("_vision_model") not in _ONE_SIZE

    def context_length(self, module: nn.Module) -> int | None:
        settings = getattr(module.config, "text_config", module.config)
        return getattr(settings, "max_position_embeddings", None)

    def vocabulary(self, module: nn.Module) -> int | None:
        return getattr(getattr(module.config, "text_config", module.config), "vocab_size", None)


def own_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers itself writes of a configuration that `TransformersHost.config` gave: without the class."""
    return {key: value for key, value in config.items() if key != "class"}


def end_of_text(tower: Any) -> int | None:
    """The id at whose first place a CLIP's text is read; None where it is read at its largest id."""
    return None if tower.eos_token_id == _WRONG_END else tower.eos_token_id


def _embedder(module: nn.Module) -> nn.Module:
    """The part that embeds an image: what a classifier's head stands on, or the model itself."""
    if hasattr(module, "visual_projection"):  # CLIPVisionModelWithProjection, whose embedding is the projected one
        return module
    base = module.base_model
    if base is module and hasattr(module, "classifier"):  # CLIP's and SigLIP's classifiers name no base model
        return getattr(module, "vision_model", module)
    return _whole_base(module)


def _whole_base(module: nn.Module) -> nn.Module:
    """What transformers calls the base model; of DINOv3 that is a stack of layers, and the model is `module`."""
    base = module.base_model
    return module if host_class(base).__name__.endswith("Encoder") else base


def _refuse_headless(module: nn.Module) -> None:
    """Raise `QuantizationError` for a SigLIP without the head that makes an embedding of its tokens."""
    if getattr(getattr(module, "vision_model", module), "use_head", True) is False:
        raise QuantizationError(
            f"this {type(module).__name__} was made with vision_use_head=False, so it gives tokens and no embedding of "
            "an image. Build it with the head, or call the module itself and read last_hidden_state."
        )


def _pools(module: nn.Module) -> bool:
    """CLIP's and SigLIP's vision models pool by themselves; a plain ViT's embedding is its class token."""
    return type(module).__name__.startswith(("CLIP", "MetaClip2", "Siglip"))


def _features(output: Any) -> Tensor:
    """transformers 5 returns an object from get_image_features, transformers 4 the tensor itself."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _architecture(values: Any) -> Any:
    """A configuration without what says how a file of the model was quantized, and where that is."""
    if not isinstance(values, Mapping):
        return values
    return {k: _architecture(v) for k, v in values.items() if k not in _OF_FILES}


def _without_code(values: Any) -> Any:
    """A configuration without what chooses code to run: attention kernels may be fetched from the hub by name."""
    if isinstance(values, list):
        return [_without_code(value) for value in values]
    if not isinstance(values, Mapping):
        return values
    chosen = ("dtype", "torch_dtype", "auto_map", "quantization_config")
    return {k: _without_code(v) for k, v in values.items() if k not in chosen and not k.endswith("implementation")}


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    import json

    return json.loads(json.dumps(values, default=str))
