"""OpenVINO: from an ONNX graph to its IR, and that in its runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_EXACT: Mapping[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
"""Else what stays float is computed in bf16 where the processor has that, and what is measured is another model."""


def convert(graph: Path, stem: Path) -> list[Path]:
    """Write STEM.xml and STEM.bin. Floats that are weights are stored as fp16 where they are fp16 in the graph."""
    import openvino

    model = openvino.convert_model(graph)
    path = stem.with_suffix(".xml") if "." not in stem.name else stem.with_name(f"{stem.name}.xml")
    openvino.save_model(model, path, compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


def open_graph(path: Path, threads: int | None) -> Callable[[Mapping[str, np.ndarray], str], np.ndarray]:
    """The IR at `path`, compiled for the CPU."""
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", **_EXACT}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(path, "CPU", options)
    request = compiled.create_infer_request()

    def run(inputs: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        return request.infer(dict(inputs))[compiled.output(output)].copy()

    return run
