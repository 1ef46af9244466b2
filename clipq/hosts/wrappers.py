"""Models inside models: which wrappers clipq looks into, and what to pass of those that it does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from ..errors import QuantizationError
from .base import host_class

_KNOWN = ("sentence_transformers.", "timm.models._features.FeatureGetterNet")
"""How the names of classes begin of which the model inside is meant: they call its own methods."""

_FEATURES = ("FeatureGetterNet", "Backbone")


def unwrap(module: nn.Module, recognised: Callable[[nn.Module], bool]) -> nn.Module:
    """The one model in a known wrapper that a host recognises; `module` itself if it is no such wrapper."""
    if not _name(module).startswith(_KNOWN):
        return module
    found = list(inside(module, recognised))
    return found[0][1] if len(found) == 1 else module


def inside(module: nn.Module, recognised: Callable[[nn.Module], bool]) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of the models in `module`, and not of those within these."""
    outer = None
    for name, part in module.named_modules():
        within = outer is not None and name.startswith(outer)
        if name and not within and recognised(part):
            outer = f"{name}."
            yield name, part


def advice(module: nn.Module, recognised: Callable[[nn.Module], bool]) -> str:
    """What to pass instead of a wrapper: a sentence, or nothing where no model is inside."""
    names = [name for name, _ in inside(module, recognised)]
    if not names:
        return ""
    passed = " or ".join(f"module.get_submodule({name!r})" for name in names[:3])
    return f" There is one inside: pass {passed}, which is changed in place."


def refuse_feature_maps(module: nn.Module) -> None:
    """Raise `QuantizationError` for a model that gives feature maps: these are no embedding."""
    if _name(module).startswith(("timm.", "transformers.")) and _name(module).endswith(_FEATURES):
        raise QuantizationError(
            f"{_name(module)} gives feature maps and no embedding. clipq.quantize(module) makes it int8, to be called "
            "as before; for embeddings pass the whole model: timm.create_model(name, num_classes=0), or transformers' "
            "AutoModel."
        )


def _name(module: nn.Module) -> str:
    kind = host_class(module)
    return f"{kind.__module__}.{kind.__qualname__}"
