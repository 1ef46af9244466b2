"""The float model that a quantized file was made from, as the file itself says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ClipqError

_HUB = r"[\w.-]+/[\w.-]+"


def float_origin(model: str) -> dict[str, Any] | None:
    """The arguments of `clipq.load` for the model that the quantized clipq file (or folder) `model` was made from.

    `None` if `model` is anything else: its own fp32 self can be loaded. Raises `ClipqError` where the file does not say
    it, or only names a place on the machine that wrote it.
    """
    from ..files.header import read_header

    if not Path(model).exists():
        return None
    try:
        config = read_header(model).config
    except CheckpointError:  # of a host library, or damaged: loading says which
        return None
    if not config["recipe"]["modules"]:
        return None
    if found := _named(config["source"], config["host"]):
        return found
    raise ClipqError(
        f"{model} is quantized, and does not say by a name that others know which float model it was made from; "
        "name that one: --baseline MODEL, a name or a path."
    )


def _named(source: Mapping[str, Any], host: object) -> dict[str, Any] | None:
    """By what is safe to take from a file of anybody: names of the zoo, of open_clip, of the hub; no path."""
    from ..zoo import registry

    name, arch, tag, base = (source.get(key) if isinstance(source.get(key), str) else "" for key in _KEYS)
    if registry.is_known(name):
        return {"name_or_path": name, "pretrained": None}
    if host == "open_clip" and arch and tag and _of_open_clip(arch, tag):
        return {"name_or_path": arch, "pretrained": tag}
    if host == "transformers" and re.fullmatch(_HUB, base) and not Path(base).exists():
        return {"name_or_path": base, "pretrained": None}
    return None


_KEYS = ("name", "arch", "tag", "base")


def _of_open_clip(arch: str, tag: str) -> bool:
    import open_clip

    return arch in open_clip.list_models() and tag in open_clip.list_pretrained_tags_by_model(arch)
