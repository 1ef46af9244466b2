"""The runtimes that models are exported to: one entry each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import unknown_name
from ..models import Model
from . import compressed, forms, graphs, mnn, onnx_runtime, open_vino
from .gate import Encode

Session = Callable[[Mapping[str, np.ndarray], str], np.ndarray]
"""A graph in its runtime: inputs by name, and the name of the output that is wanted."""

Kinds = frozenset[str]
"""How the linears of a graph compute: names of `forms`; none of a float model."""

_GRAPH_PACKAGES = ("onnx", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class Target:
    """`forms`: how quantized linears are recorded. `floats`: the float precisions that its files may have.

    `convert`: from an ONNX file to the target's own files at a path without its ending, which come back; `suffix` is
    that of the first. `open`: one of them in the runtime of `runtime` (a distribution). `extra`: what installs all.
    `rounds_rows`: whether it quantizes the inputs of dynamic linears in a way of its own.
    `folder`, for what is no graph: writes a model into a folder and opens it there; what it left float, and why.
    """

    about: str
    extra: str
    packages: tuple[str, ...]
    runtime: str
    suffix: str
    forms: Mapping[str, forms.Form] | None = None
    convert: Callable[[Path, Path, Kinds], list[Path]] | None = None
    open: Callable[[Path, int | None], Session] | None = None
    floats: tuple[str, ...] = ("fp32", "fp16")
    opset: int = graphs.OPSET
    folder: Callable[[Model, Path], tuple[Mapping[str, Encode], Mapping[str, str]]] | None = None
    rounds_rows: bool = False
    note: str | None = None


def target_named(name: str) -> Target:
    if name not in TARGETS:
        raise unknown_name("export target", name, TARGETS)
    return TARGETS[name]


TARGETS: Mapping[str, Target] = {
    "onnx": Target(
        about="ONNX, run by ONNX Runtime; also as Immich and transformers.js read it",
        extra="onnx",
        packages=(*_GRAPH_PACKAGES, "onnxruntime"),
        runtime="onnxruntime",
        suffix=".onnx",
        forms=forms.ONNX_RUNTIME,
        open=onnx_runtime.open_graph,
    ),
    "openvino": Target(
        about="OpenVINO IR: int8 weights with rows quantized by the runtime, static int8 with clipq's ranges, fp16",
        extra="openvino",
        packages=(*_GRAPH_PACKAGES, "openvino"),
        runtime="openvino",
        suffix=".xml",
        forms=forms.OPENVINO,
        convert=open_vino.convert,
        open=open_vino.open_graph,
        rounds_rows=True,
    ),
    "mnn": Target(
        about="MNN: fp32, fp16, int8 and int4 weights, int8 products of rows quantized by the runtime",
        extra="mnn",
        packages=(*_GRAPH_PACKAGES, "MNN"),
        runtime="MNN",
        suffix=".mnn",
        forms=forms.MNN,
        convert=mnn.convert,
        open=mnn.open_graph,
        rounds_rows=True,
    ),
    "tensorrt": Target(
        about="ONNX with explicit symmetric Q/DQ for trtexec: static int8 or fp8",
        extra="onnx",
        packages=(*_GRAPH_PACKAGES, "onnxruntime"),
        runtime="onnxruntime",
        suffix=".onnx",
        forms=forms.TENSORRT,
        open=onnx_runtime.open_as_written,
        opset=graphs.FP8_OPSET,
        note="compared in ONNX Runtime; TensorRT itself was not run",
    ),
    "compressed-tensors": Target(
        about="a folder that transformers loads without clipq, through the package compressed-tensors",
        extra="compressed-tensors",
        packages=("compressed_tensors",),
        runtime="compressed-tensors",
        suffix=".safetensors",
        floats=(),
        folder=compressed.write_and_open,
    ),
}
