"""OpenVINO: from an ONNX graph to its IR, and that in its runtime."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_GROUPS = {"dynamic": 32, "weight-only": 0}
"""The inputs that share a scale where the runtime quantizes rows; groups of 128 are a few percent faster, with 1.6
times the error. 0: rows stay float. OpenVINO itself would quantize the rows of every int8 weight.
"""
_EXACT: Mapping[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
"""Else what stays float is computed in bf16 where the processor has that, and what is measured is another model."""


def convert(graph: Path, stem: Path, kinds: Collection[str]) -> list[Path]:
    """Write STEM.xml and STEM.bin; whether the runtime quantizes rows, and in which groups, is written into them."""
    import openvino

    model = openvino.convert_model(graph)
    for kind in kinds & set(_GROUPS):
        model.set_rt_info(str(_GROUPS[kind]), ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    path = stem.with_name(f"{stem.name}.xml")
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
