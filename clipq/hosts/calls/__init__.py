"""Hosts' own classes with their forward run as a whole: the classes that `install` puts in place of theirs.

Nothing here replaces a module or a tensor: a module's class becomes a subclass of itself, of the same name.
"""

from __future__ import annotations

import importlib
from importlib import metadata

from torch import nn

from ...towers.calls import Whole, WholePool, WholeTower
from ..base import host_class

_OPEN_CLIP = {
    "open_clip.model": ("CLIP",),
    "open_clip.coca_model": ("CoCa",),
    "open_clip.transformer": (
        "VisionTransformer",
        "TextTransformer",
        "ResidualAttentionBlock",
        "CustomResidualAttentionBlock",
        "AttentionalPooler",
    ),
}
_TIMM = {
    "timm.models.vision_transformer": ("VisionTransformer", "Block"),
    "timm.models.eva": ("Eva", "EvaBlock"),
    "timm.models.deit": ("VisionTransformerDistilled",),
    "timm.layers.attention_pool": ("AttentionPoolLatent",),
}
_CLIP = ("CLIPVisionModel", "CLIPTextModel", "CLIPTextModelWithProjection", "CLIPEncoderLayer")
_METACLIP_2 = tuple(f"MetaClip2{name.removeprefix('CLIP')}" for name in _CLIP)
_SIGLIP = ("SiglipVisionModel", "SiglipTextModel", "SiglipEncoderLayer", "SiglipMultiheadAttentionPoolingHead")
_SIGLIP_2 = ("Siglip2TextModel", "Siglip2EncoderLayer", "Siglip2MultiheadAttentionPoolingHead")
_HF = "transformers.models.{0}.modeling_{0}"
_MODULES = {
    "open_clip": _OPEN_CLIP,
    "timm": _TIMM,
    "clip": {_HF.format("clip"): _CLIP},
    "siglip": {_HF.format("siglip"): _SIGLIP},
    "siglip2": {_HF.format("siglip2"): _SIGLIP_2},
    "vit": {_HF.format("vit"): ("ViTModel", "ViTLayer")},
    "deit": {_HF.format("deit"): ("DeiTModel", "DeiTLayer")},
    "dinov2": {_HF.format("dinov2"): ("Dinov2Model", "Dinov2Layer")},
    "dinov3": {_HF.format("dinov3_vit"): ("DINOv3ViTModel", "DINOv3ViTLayer")},
    "metaclip_2": {_HF.format("metaclip_2"): _METACLIP_2},
}
WHOLE = {
    f"{package}.{name}": (home, name)
    for home, packages in _MODULES.items()
    for package, names in packages.items()
    for name in names
}
"""For each class of a host, the module here that has the class to put in its place."""


def install(model: nn.Module) -> None:
    """Let the known towers and blocks of `model` run as wholes when they are called. Doing it again changes nothing."""
    for module in model.modules():
        kind = type(module)
        home, name = WHOLE.get(f"{kind.__module__}.{kind.__qualname__}", (None, None))
        if home is not None and _is_new_enough(kind.__module__):
            module.__class__ = getattr(importlib.import_module(f".{home}", __name__), name)
    for tower in (module for module in model.modules() if isinstance(module, WholeTower)):
        norms = importlib.import_module(".norms", __name__)
        norms.install(tower)
        for pool in (part for part in tower.modules() if isinstance(part, WholePool)):
            pool.beside_int8 = norms.is_int8(tower.modules())


def install_saving(model: nn.Module) -> None:
    """Let a quantized model of transformers write itself when it is asked to (`saved`)."""
    if _is_new_enough("transformers."):
        importlib.import_module(".saved", __name__).install(model)


def uninstall(model: nn.Module) -> None:
    """The inverse of `install`: every module of `model` is of its host's own class again."""
    for module in model.modules():
        if isinstance(module, Whole) or type(module).__module__ == f"{__name__}.norms":
            module.__class__ = host_class(module)


def _is_new_enough(package: str) -> bool:
    """Whether the host's classes are those that are known here: transformers 4 arranges its towers otherwise."""
    return not package.startswith("transformers.") or int(metadata.version("transformers").partition(".")[0]) >= 5
