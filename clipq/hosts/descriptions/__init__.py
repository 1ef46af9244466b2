"""Towers described for the native library: which tensor plays which part, as JSON that needs no host to be read.

`clipq.native` runs what is described here, and tells the format; a file keeps it in its header. A tower that the
library does not compute whole has a reason in place of a description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ...modules.state import slots
from ...towers.calls import WholeTower
from ..base import Host, host_class
from . import open_clip, timm, transformers
from .writing import Undescribed, Writer

Description = dict[str, Any]

_LIBRARIES = {"open_clip": open_clip.TOWERS, "timm": timm.TOWERS, "transformers": transformers.TOWERS}
_TOWERS: Mapping[tuple[str, str], Callable[[Writer, Any], Description]] = {
    (library, name): write for library, towers in _LIBRARIES.items() for name, write in towers.items()
}
"""By the library and the name of the class that a tower is of."""
_AFTER: Mapping[str, Callable[[Writer, nn.Module, str], list[Description]]] = {
    "open_clip": open_clip.after,
    "timm": lambda writer, module, tower: [],
    "transformers": transformers.after,
}


def describe(module: nn.Module, host: Host, tower: str) -> Description:
    """The description of a tower of `module`, or {"undescribed": the reason}."""
    try:
        return _described(module, host, tower)
    except Undescribed as reason:
        return {"undescribed": str(reason)}


def _described(module: nn.Module, host: Host, tower: str) -> Description:
    whole = host.whole(module, tower)
    write = _writer_of(module if whole is None else whole)
    found = whole.found() if isinstance(whole, WholeTower) else None
    if found is None:
        raise Undescribed(
            f"this {host_class(whole).__name__} is not the plain one: its blocks or its pooling do something else"
        )
    writer = _names(module)
    described = _checked(write, writer, whole)
    described["blocks"] = [writer.block(block) for block in found.blocks]
    if any(block.rotation != "none" for block in found.blocks):
        described |= writer.rotary(found, described)
    described["steps"] += _AFTER[host.name](writer, module, tower)
    if tower == "image" and described["pixels"] != list(host.pixel_shape(module) or ()):
        raise Undescribed(f"it is made for pictures of {described['pixels']}, and used on others")
    return described


def _names(module: nn.Module) -> Writer:
    return Writer({id(slot.tensor): name for name, slot in slots(module).items()})


def _writer_of(module: nn.Module) -> Callable[[Writer, Any], Description]:
    kind = host_class(module)
    write = _TOWERS.get((kind.__module__.partition(".")[0], kind.__name__))
    if write is None:
        raise Undescribed(f"{kind.__name__} is not among {', '.join(sorted({name for _, name in _TOWERS}))}")
    return write


def _checked(write: Callable[[Writer, Any], Description], writer: Writer, whole: nn.Module) -> Description:
    """What is written of a tower, whose positions have to be those of pictures of its own size."""
    described = write(writer, whole)
    if writer.places is not None:
        _, height, width = described["pixels"]
        down, across = described["patch"]
        wanted = described["positions"]["prefix"] + (height // down) * (width // across)
        if writer.places != wanted:
            raise Undescribed(f"it has {writer.places} positions for {wanted} tokens, and resamples them")
    return described
