"""transformers' quantizers get clipq's as soon as both libraries are imported, in whichever order.

transformers has two tables of quantizers and no entry points. If it is imported already, clipq registers now; else the
import of its tables is watched, as PEP 369 meant it: a finder at the head of `sys.meta_path` that finds nothing itself,
lets the module be imported as ever, registers, and is gone.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_TABLES = "transformers.quantizers.auto"


class _Watch(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _TABLES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def and_register(module: ModuleType) -> None:
                execute(module)
                register(module)

            spec.loader.exec_module = and_register
        return spec


def register_with_transformers() -> None:
    """Register now if transformers' tables are there, else as soon as they are."""
    tables = sys.modules.get(_TABLES)
    if tables is not None:
        register(tables)
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


def register(tables: ModuleType) -> None:
    """Put clipq's configuration and quantizer into transformers' tables, and its way to save into clipq's own."""
    from ..modules.save_guard import write_with
    from .transformers_config import METHOD, ClipqConfig
    from .transformers_quantizer import ClipqQuantizer, save

    tables.AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = ClipqConfig
    tables.AUTO_QUANTIZER_MAPPING[METHOD] = ClipqQuantizer
    write_with(save)
