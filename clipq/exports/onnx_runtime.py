"""A graph in ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

_ERRORS_ONLY = 3  # of the log: a warning about every initializer that is folded says nothing to a user


def open_graph(path: Path, threads: int | None) -> Callable[[Mapping[str, np.ndarray], str], np.ndarray]:
    """The graph at `path` with all optimizations, as users run it; `threads`: None for the runtime's own choice."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if threads:
        options.intra_op_num_threads = threads
    # Its threads spin while it runs, which is its default, but not on when the call has returned: whatever takes turns
    # with it would wait for them.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.x64quantprecision", "1")  # exact also where the processor lacks VNNI
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs, output: session.run([output], dict(inputs))[0]
