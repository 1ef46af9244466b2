"""From a tower to an ONNX file: torch's exporter, then what it leaves to others: fp16 that is safe, large weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ExportError, first_line

if TYPE_CHECKING:
    import onnx_ir

OPSET = 18
"""The operators' version where nothing newer is needed: what runtimes of the last years all read."""
FP8_OPSET = 19
NEWEST_OPSET = 23
"""What has been tried; runtimes lag behind."""

_STATISTICS = ("LayerNormalization", "Softmax", "ReduceMean", "ReduceL2")
"""What sums over a row, in whose sums fp16 overflows or loses bits."""
_INLINE_BYTES = 1 << 30
"""A protobuf ends at 2 GB; weights beyond half of that lie beside the graph."""


def write_graph(
    tower: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    path: Path,
    opset: int = OPSET,
    about: Mapping[str, str] | None = None,
) -> list[Path]:
    """Trace `tower`, called with `inputs` (by their names in the graph), to `path`; returns the files written.

    The first dimension of each input is open. `about` becomes the file's metadata. Weights of a gigabyte or more are
    written to `PATH.data`. Raises `ExportError` for a model that torch cannot trace.
    """
    program = _traced(tower, inputs, outputs, opset)
    _statistics_in_float32(program.model.graph)
    _forget_sources(program.model)
    program.model.metadata_props.update(about or {})
    program.model.producer_name = "clipq"
    external = _weight_bytes(program.model) >= _INLINE_BYTES
    program.save(path, external_data=external)
    return [path, path.with_name(f"{path.name}.data")] if external else [path]


def _traced(tower: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], opset: int) -> Any:
    batches = tuple({0: torch.export.Dim(f"{name}_batch", min=1, max=1 << 16)} for name in inputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's about its own insides
            return torch.onnx.export(
                tower.eval(),
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=batches,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # the border to a tracer that is given whatever model users have
        raise ExportError(f"torch cannot trace this model: {first_line(error)}") from error


def _statistics_in_float32(graph: onnx_ir.Graph) -> None:
    """Casts around what sums over rows of fp16, which a runtime might otherwise do in fp16.

    A LayerNorm whose squares overflow takes a ViT to chance without an error (onnxsim issue 1742).
    """
    import onnx_ir as ir

    for node in list(graph):
        if node.op_type not in _STATISTICS or node.inputs[0].dtype != ir.DataType.FLOAT16:
            continue
        for place, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.FLOAT16:
                graph.insert_before(node, wide := _cast(value, ir.DataType.FLOAT))
                node.replace_input_with(place, wide.outputs[0])
        out = node.outputs[0]
        uses = list(out.uses())
        graph.insert_after(node, narrow := _cast(out, ir.DataType.FLOAT16))
        for use in uses:
            use.node.replace_input_with(use.idx, narrow.outputs[0])
        out.dtype = ir.DataType.FLOAT


def _forget_sources(model: onnx_ir.Model) -> None:
    """Drop what the exporter notes at each node: stack traces, with the paths of this machine. Half a small file."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _cast(value: onnx_ir.Value, to: onnx_ir.DataType) -> onnx_ir.Node:
    import onnx_ir as ir

    node = ir.node("Cast", [value], {"to": int(to)})
    node.outputs[0].dtype, node.outputs[0].shape = to, value.shape
    return node


def _weight_bytes(model: onnx_ir.Model) -> int:
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
