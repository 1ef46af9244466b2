"""The libraries whose models clipq understands; `find_host` says which one made a model.

What is done to a model is not decided here: a host only says where everything is, and how it is called.
"""

from __future__ import annotations

import os

from torch import nn

from ..errors import QuantizationError, unknown_name
from .base import Host
from .open_clip import OpenClipHost
from .timm import TimmHost
from .transformers import TransformersHost
from .wrappers import advice, refuse_feature_maps, unwrap

HOSTS: dict[str, Host] = {host.name: host for host in (OpenClipHost(), TransformersHost(), TimmHost())}

__all__ = ["HOSTS", "Host", "embedder", "find_host", "host_named", "unwrapped"]


def unwrapped(module: nn.Module) -> nn.Module:
    """The host's model in a SentenceTransformer or in timm's feature getter; any other module as it is."""
    return unwrap(module, _is_known)


def embedder(module: nn.Module) -> nn.Module:
    """As `unwrapped`, of what is to embed. Raises `QuantizationError` for a model that gives feature maps instead."""
    refuse_feature_maps(module)
    return unwrapped(module)


def find_host(module: nn.Module) -> Host:
    """The host of `module`. Raises `QuantizationError` for a model of no known library, and for what is no model."""
    if not isinstance(module, nn.Module):
        named = f" clipq.load({str(module)!r}) loads a model by name." if isinstance(module, (str, os.PathLike)) else ""
        raise QuantizationError(
            f"{module!r:.80} ({type(module).__name__}) is not a model: give a module of {', '.join(HOSTS)}, or what "
            f"clipq.load gives.{named}"
        )
    for host in HOSTS.values():
        if host.recognises(module):
            return host
    raise QuantizationError(
        f"{type(module).__module__}.{type(module).__qualname__} is not a model clipq knows. It takes models of "
        f"{', '.join(HOSTS)}: an open_clip CLIP; a transformers CLIP, SigLIP, ViT, DeiT or DINOv2; a timm ViT."
        f"{advice(module, _is_known)}"
    )


def _is_known(module: nn.Module) -> bool:
    return any(host.recognises(module) for host in HOSTS.values())


def host_named(name: str) -> Host:
    if name not in HOSTS:
        raise unknown_name("host library", name, HOSTS)
    return HOSTS[name]
