"""What did quantization cost? Tasks as data, zero-shot evaluation, fidelity, and results that can be compared.

Nothing here changes a model. Imported on first use (PEP 562): the list of tasks or a result file needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results import Result, read_results
    from .running import evaluate
    from .similarity import fidelity
    from .tasks import Task, list_tasks, load_task

_HOME = {
    "Result": "results",
    "Task": "tasks",
    "evaluate": "running",
    "fidelity": "similarity",
    "list_tasks": "tasks",
    "load_task": "tasks",
    "read_results": "results",
}

__all__ = ["Result", "Task", "evaluate", "fidelity", "list_tasks", "load_task", "read_results"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
