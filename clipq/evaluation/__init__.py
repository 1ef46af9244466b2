"""What did quantization cost? Tasks as data, zero-shot evaluation, fidelity, and results that can be compared.

Nothing here changes a model. Imported on first use (PEP 562): the list of tasks or a result file needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .results import Result, read_results
    from .running import evaluate
    from .similarity import fidelity
    from .tasks import Task, list_tasks, load_task

_HOME = {
    "Result": ".results",
    "Task": ".tasks",
    "evaluate": ".running",
    "fidelity": ".similarity",
    "list_tasks": ".tasks",
    "load_task": ".tasks",
    "read_results": ".results",
}

__all__ = ["Result", "Task", "evaluate", "fidelity", "list_tasks", "load_task", "read_results"]

__getattr__, __dir__ = lazily(__name__, _HOME)
