"""Towers described for the native library: which tensor plays which part, as JSON that needs no host to be read.

`clipq.native.towers` runs what is described here; a file keeps it in its header. A tower that the library does not
compute whole has a reason in place of a description.
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
    kind = host_class(module if whole is None else whole)
    write = _TOWERS.get((kind.__module__.partition(".")[0], kind.__name__))
    if not isinstance(whole, WholeTower) or write is None:
        raise Undescribed(f"{kind.__name__} is not among {', '.join(name for _, name in _TOWERS)}")
    found = whole.found()
    if found is None:
        raise Undescribed(f"this {kind.__name__} is not the plain one: its blocks or its pooling do something else")
    writer = Writer({id(slot.tensor): name for name, slot in slots(module).items()})
    described = write(writer, whole)
    described["blocks"] = [writer.block(block) for block in found.blocks]
    described["steps"] += _AFTER[host.name](writer, module, tower)
    return {**described, **_pixels(described, writer, host.pixel_shape(module))} if tower == "image" else described


def _pixels(described: Description, writer: Writer, shape: tuple[int, int, int] | None) -> Description:
    """The size of pictures, which has to be the one that the positions are for."""
    if shape is None:
        raise Undescribed("it takes pictures of no one size")
    patches = (shape[1] // described["patch"][0]) * (shape[2] // described["patch"][1])
    wanted = described.get("positions", {}).get("prefix", 0) + patches
    if writer.places not in (None, wanted):
        raise Undescribed(f"it has {writer.places} positions, which are resampled to {wanted} for pictures of its size")
    return {"pixels": list(shape)}
