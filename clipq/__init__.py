"""clipq: CLIP models in int8, with the proof of what it cost.

`clipq.load("ViT-B-32", precision="int8")` gives a model that embeds the same images and texts into as good as the
same space, four times smaller; `clipq.evaluate(model, task, baseline=...)` measures the difference.

The names below are imported on first use (PEP 562), so `import clipq` costs nothing: no torch, no numpy. Where only
clipq-runtime is installed, which has the same files but few of them, each says what to install.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from .version import VERSION as __version__

if TYPE_CHECKING:
    from .alignment.aligning import align
    from .arithmetic.scheme_files import read_schemes, write_schemes
    from .arithmetic.schemes import Scheme
    from .drifting.measuring import drift
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
    from .same_space import check_same_space, space_of
    from .training.finetuning import finetune
    from .zoo.registry import list_models

_HOME = {
    "ClipqConfig": "plugins.transformers_config",
    "ClipqError": "errors",
    "Model": "models",
    "Result": "evaluation",
    "Scheme": "arithmetic.schemes",
    "align": "alignment.aligning",
    "check_same_space": "same_space",
    "coverage": "methods.coverage",
    "drift": "drifting.measuring",
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
    "space_of": "same_space",
    "write_schemes": "arithmetic.scheme_files",
}

__all__ = [
    "ClipqConfig",
    "ClipqError",
    "Model",
    "Result",
    "Scheme",
    "__version__",
    "align",
    "check_same_space",
    "coverage",
    "drift",
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
    "space_of",
    "write_schemes",
]


_MODULES = {"functional": "arithmetic.functional", "plots": "plots", "runtime": "runtime"}
_IS_WHOLE = importlib.util.find_spec(f"{__name__}.plugins") is not None
"""Whether this is clipq, and not clipq-runtime alone."""


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _imported(_MODULES[name], name)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_imported(_HOME[name], name), name)
    globals()[name] = value  # the next use is a plain attribute
    return value


def _imported(module: str, name: str) -> object:
    """A module of clipq, for the sake of `name`. Raises `MissingPackageError` where clipq-runtime is all there is.

    Modules are named by strings, which scripts/building/closure.py does not follow: the runtime's wheel has what its
    import statements reach.
    """
    try:
        return importlib.import_module(f".{module}", __name__)
    except ModuleNotFoundError as error:
        if _IS_WHOLE:
            raise
        from .errors import MissingPackageError

        raise MissingPackageError(
            f"clipq.{name} needs the whole package, and only clipq-runtime is installed; install the whole package: "
            "pip uninstall -y clipq-runtime && pip install clipq"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if _IS_WHOLE:
    importlib.import_module(".plugins.registration", __name__).register_with_transformers()
