"""Names of a room that are imported on first use (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


def lazily(room: str, home: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of the package `room`; `home`: the module of each name, such as ".codes"."""

    def find(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home[name], room), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[room]), *home})

    return find, names
