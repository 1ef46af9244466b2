"""A graph in ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

_ERRORS_ONLY = 3  # of the log: a warning about every initializer that is folded says nothing to a user


def open_graph(path: Path, threads: int | None) -> Callable[[Mapping[str, np.ndarray], str], np.ndarray]:
    """The graph at `path` with all optimizations, as users run it; `threads`: None for the runtime's own choice."""
    return _opened(path, _options(threads))


def open_as_written(path: Path, threads: int | None) -> Callable[[Mapping[str, np.ndarray], str], np.ndarray]:
    """The graph operator by operator: what it says, for another runtime, and not what ONNX Runtime makes of it.

    Optimized, it computes a dequantized weight's product with rows that it quantizes, and knows little of fp8.
    """
    import onnxruntime

    options = _options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _opened(path, options)


def _options(threads: int | None) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if threads:
        options.intra_op_num_threads = threads
    # Its threads spin while it runs, which is its default, but not on when the call has returned: whatever takes turns
    # with it would wait for them.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _opened(path: Path, options: onnxruntime.SessionOptions) -> Callable[[Mapping[str, np.ndarray], str], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs, output: session.run([output], dict(inputs))[0]
