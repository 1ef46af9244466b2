"""The engines by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import unknown_name

if TYPE_CHECKING:
    from ..embedding.jobs import Engine

_HOME: Mapping[str, tuple[str, str]] = {
    "local": (".local", "Local"),
    "ray": (".ray", "Ray"),
    "daft": (".daft", "Daft"),
}
"""The module and the class of each."""

ENGINES = tuple(_HOME)


def engine_named(name: str, workers: int | None = None, threads: int | None = None) -> Engine:
    """The engine `name`, of `workers` processes of `threads` threads each; None: as many as the engine finds right.

    Raises `UnknownNameError` for a name that is none, `MissingPackageError` where the engine's package is not there.
    """
    if name not in _HOME:
        raise unknown_name("engine", name, ENGINES)
    module, kind = _HOME[name]
    return getattr(importlib.import_module(module, __package__), kind)(workers, threads)
