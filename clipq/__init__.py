"""clipq: CLIP models in int8, with the proof of what it cost.

`clipq.load("ViT-B-32", precision="int8")` gives a model that embeds the same images and texts into as good as the
same space, four times smaller; `clipq.evaluate(model, task, baseline=...)` measures the difference.

The names below are imported on first use (PEP 562), so `import clipq` costs nothing: no torch, no numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .plugins.registration import register_with_transformers
from .version import VERSION as __version__

if TYPE_CHECKING:
    from .arithmetic.scheme_files import read_schemes, write_schemes
    from .arithmetic.schemes import Scheme
    from .errors import ClipqError
    from .evaluation import Result, evaluate
    from .exports.exporting import export
    from .files.saving import push_to_hub, save
    from .loading.load import load
    from .methods.coverage import coverage
    from .mixing.mixing import mix, quantize
    from .mixing.sensitivity import sensitivity
    from .models import Model
    from .plugins.transformers_config import ClipqConfig
    from .training.finetuning import finetune
    from .zoo.registry import list_models

_HOME = {
    "ClipqConfig": "plugins.transformers_config",
    "ClipqError": "errors",
    "Model": "models",
    "Result": "evaluation",
    "Scheme": "arithmetic.schemes",
    "coverage": "methods.coverage",
    "evaluate": "evaluation",
    "export": "exports.exporting",
    "finetune": "training.finetuning",
    "list_models": "zoo.registry",
    "load": "loading.load",
    "push_to_hub": "files.saving",
    "mix": "mixing.mixing",
    "quantize": "mixing.mixing",
    "read_schemes": "arithmetic.scheme_files",
    "save": "files.saving",
    "sensitivity": "mixing.sensitivity",
    "write_schemes": "arithmetic.scheme_files",
}

__all__ = [
    "ClipqConfig",
    "ClipqError",
    "Model",
    "Result",
    "Scheme",
    "__version__",
    "coverage",
    "evaluate",
    "export",
    "finetune",
    "list_models",
    "load",
    "mix",
    "push_to_hub",
    "quantize",
    "read_schemes",
    "save",
    "sensitivity",
    "write_schemes",
]


def __getattr__(name: str) -> object:
    if name == "functional":  # a module
        return importlib.import_module(".arithmetic.functional", __name__)
    if name == "plots":  # a room
        return importlib.import_module(".plots", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value  # the next use is a plain attribute
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_transformers()
