"""MNN: from an ONNX graph to its file, with clipq's own integers in it, and that in its runtime.

MNN's converter quantizes float weights by their largest value, which gives a row other integers than clipq's wherever
its largest is not 127. So it is asked to quantize the linears that are quantized, and no others, in their bits and
blocks; then what it rounded is replaced by clipq's integers and scales, in place (`mnn_file`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ExportError
from ..version import VERSION
from .mnn_file import WEIGHTS, MnnFile
from .recording import PLAIN_DOMAIN

if TYPE_CHECKING:
    import onnx_ir

DYNAMIC, FLOAT = "clipq dynamic", "clipq float"
"""Kept in the file as its `bizCode`: whether linears quantize their inputs as they run (MNN's memory mode "low")."""

_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
"""Not through MNN.tools: importing that runs pip for a package that reports each conversion to MNN's makers."""
_CONVERTED = "__matmul_converted"
"""What the converter puts behind the name of a product that becomes a convolution."""
_BLOCK = 16
_HIGH, _NORMAL, _LOW = 1, 0, 2
"""Of MNN's precision and memory modes, as integers: the word "low" is ignored without a sound, and floats computed."""
_FINE_INPUTS = (5, 2)
"""The hint DYNAMIC_QUANT_OPTIONS: ranges for parts of the inputs. By default one is shared, at twice the error."""


@dataclass(frozen=True)
class Linear:
    """A quantized linear of the graph: its name, the names that MNN may give it, and what `PlainIntegers` holds."""

    about: str
    names: tuple[str, ...]
    integers: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray | None
    bits: int

    @property
    def block(self) -> int:
        return self.integers.shape[1] // self.scale.shape[1]

    def dequantized(self) -> np.ndarray:
        """float32 [out, in]."""
        blocks = self.integers.astype(np.float32).reshape(*self.scale.shape, self.block)
        moved = blocks if self.zero_point is None else blocks - self.zero_point[..., None]
        return (moved * self.scale[..., None]).reshape(self.integers.shape)

    def settings(self) -> list[dict[str, Any]]:
        """Entries of the converter's file of parameters: one for each name; it ignores those that it does not know."""
        block = -1 if self.scale.shape[1] == 1 else self.block
        weight = {"bits": self.bits, "asymmetric": self.zero_point is not None, "blockSize": block}
        return [{"opName": name, "weight": [{"name": name, **weight}]} for name in self.names]

    def stored(self) -> tuple[np.ndarray, np.ndarray]:
        """Unsigned integers [out, in], and scales [out, blocks] or [out, blocks, 2], for `mnn_file.Stored.put`."""
        lowest = -(1 << (self.bits - 1))
        integers = (self.integers.astype(np.int16) - lowest).astype(np.uint8)
        if self.zero_point is None:
            return integers, self.scale
        return integers, np.stack([(lowest - self.zero_point) * self.scale, self.scale], axis=-1)


def convert(graph: Path, stem: Path, kinds: Collection[str]) -> list[Path]:
    """Write STEM.mnn, and above 2 GB its weights beside it. Raises `ExportError` for what MNN cannot express."""
    import onnx_ir as ir

    path = stem.resolve().with_name(f"{stem.name}.mnn")  # the converter runs in a folder of its own
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mnn-") as scratch:
        model = ir.load(graph)
        linears = _take_linears(model.graph)
        _spell_out(model.graph)
        half = _widened(model.graph) and not linears  # what is stored in halves is not quantized
        plain = Path(scratch) / "graph.onnx"
        ir.save(model, plain, external_data="graph.onnx.data")
        settings = Path(scratch) / "settings.json"
        settings.write_text(json.dumps(_settings(linears)), encoding="utf-8")
        options = [*(["--fp16"] if half else []), "--compressionParamsFile", str(settings)]
        _run(plain, path, DYNAMIC if "dynamic" in kinds else FLOAT, options)
    _put(path, linears)
    beside = path.with_name(f"{path.name}{WEIGHTS}")
    return [path, beside] if beside.exists() else [path]


def _settings(linears: Sequence[Linear]) -> dict[str, Any]:
    """MNN_compression.proto as JSON."""
    layers = [entry for one in linears for entry in one.settings()]
    return {"version": VERSION, "forGuide": True, "algo": [{"type": "QUANTIZE", "quantParams": {"layer": layers}}]}


def _run(graph: Path, path: Path, code: str, options: Sequence[str]) -> None:
    """MNN's converter in a process of its own, whose exit code says nothing and which aborts where it fails."""
    files = ["--modelFile", str(graph.resolve()), "--MNNModel", str(path.resolve()), "--bizCode", code]
    command = [sys.executable, "-c", _CONVERT, "-f", "ONNX", *files, *options]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=graph.parent, check=False)
    if done.returncode or "Converted Success" not in done.stdout or not path.exists():
        raise ExportError(f"MNN's converter failed: {_reason(done.stdout + done.stderr) or done.returncode}")


def _reason(output: str) -> str:
    """The line that says what is wrong, else the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next(
        (line for line in lines if "not support" in line.lower() or "error" in line.lower()), "".join(lines[-1:])
    )


def _put(path: Path, linears: Sequence[Linear]) -> None:
    """clipq's integers in place of what MNN rounded. Raises `ExportError` for a linear that is not in the file."""
    stored = MnnFile(path, write=True).weights()
    for linear in linears:
        if (name := next((name for name in linear.names if name in stored), None)) is None:
            raise ExportError(
                f"MNN's converter did not keep the linear {linear.names[0]} as one; use another precision."
            )
        stored[name].put(*linear.stored())


def _take_linears(graph: onnx_ir.Graph) -> list[Linear]:
    """Make float products of the graph's own linears; returns what they were."""
    own = [node for node in graph if node.domain == PLAIN_DOMAIN]
    return [_take(graph, node, f"quantized_{place}") for place, node in enumerate(own)]


def _take(graph: onnx_ir.Graph, node: onnx_ir.Node, name: str) -> Linear:
    import onnx_ir as ir

    inputs, *tensors = node.inputs
    integers, scale, *zero_point = (value.const_value.numpy() for value in tensors if value is not None)
    uses = [use.node.outputs[0].name for use in node.outputs[0].uses() if use.node.op_type == "Add"]
    names = tuple(f"{one}{_CONVERTED}" for one in (name, *uses))
    about = tensors[0].name.removesuffix("._kernel.weight")
    bits = node.attributes["bits"].as_int()
    linear = Linear(about, names, integers, scale, zero_point[0] if zero_point else None, bits)
    if scale.shape[1] > 1 and linear.block % _BLOCK:
        raise ExportError(
            f"{about} has a scale for each {linear.block} inputs, and MNN takes multiples of {_BLOCK}; "
            "quantize with another group_size."
        )
    weight = ir.Value(name=f"{name}_weight", const_value=ir.tensor(np.ascontiguousarray(linear.dequantized().T)))
    graph.register_initializer(weight)
    product = ir.node("MatMul", [inputs, weight])
    ir.convenience.replace_nodes_and_values(graph, node, [node], [product], node.outputs, product.outputs)
    product.outputs[0].name = name
    for value in tensors:
        if value is not None and not value.uses():
            graph.initializers.pop(value.name, None)
    return linear


def _spell_out(graph: onnx_ir.Graph) -> None:
    """`IsNaN`, which MNN lacks, as `Not(Equal(x, x))`: torch writes it after the softmax of transformers' models."""
    import onnx_ir as ir

    for node in [node for node in graph if node.op_type == "IsNaN"]:
        same = ir.node("Equal", [node.inputs[0], node.inputs[0]])
        differs = ir.node("Not", same.outputs)
        ir.convenience.replace_nodes_and_values(graph, node, [node], [same, differs], node.outputs, differs.outputs)


def _widened(graph: onnx_ir.Graph) -> bool:
    """Make float32 of all fp16; returns whether there was any. MNN computes in float32, and stores as it is told."""
    import onnx_ir as ir

    narrow, wide = ir.DataType.FLOAT16, ir.DataType.FLOAT
    found = False
    for value in graph.initializers.values():
        if value.dtype == narrow:
            value.const_value, value.dtype, found = ir.tensor(value.const_value.numpy().astype(np.float32)), wide, True
    for node in graph:
        for name, attribute in list(node.attributes.items()):
            if name == "to" and attribute.as_int() == narrow:
                node.attributes[name] = ir.AttrInt64(name, int(wide))
            elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == narrow:
                tensor = ir.tensor(attribute.as_tensor().numpy().astype(np.float32))
                node.attributes[name] = ir.AttrTensor(name, tensor)
        for value in node.outputs:
            if value.dtype == narrow:
                value.dtype = wide
    return found


def open_graph(path: Path, threads: int | None) -> Callable[[Mapping[str, np.ndarray], str], np.ndarray]:
    """The file at `path` on the CPU, as it was meant: float32 products or, if `DYNAMIC`, int8 ones.

    Raises `ExportError` for what is no .mnn file.
    """
    from MNN import expr, nn

    dynamic = MnnFile(path).code == DYNAMIC
    settings = {"precision": _HIGH, "memory": _LOW if dynamic else _NORMAL, "numThread": threads or 1}
    manager = nn.create_runtime_manager(({"backend": "CPU", **settings},))
    if dynamic:
        manager.set_hint(*_FINE_INPUTS)
    modules: dict[tuple[tuple[str, ...], str], Any] = {}

    def run(inputs: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        names = tuple(inputs)
        if (names, output) not in modules:
            modules[names, output] = _module(path, names, output, manager)
        found = modules[names, output].forward([_variable(expr, inputs[name]) for name in names])[0]
        return np.array(expr.convert(found, expr.NCHW).read()).reshape(found.shape)

    return run


def _module(path: Path, names: Sequence[str], output: str, manager: Any) -> Any:
    from MNN import nn

    try:
        return nn.load_module_from_file(str(path), list(names), [output], shape_mutable=True, runtime_manager=manager)
    except SystemError as error:  # what MNN's binding makes of every failure
        raise ExportError(f"MNN finds no graph from {', '.join(names)} to {output} in {path}.") from error


def _variable(expr: Any, array: np.ndarray) -> Any:
    """MNN has no int64: token ids are int32."""
    whole = np.issubdtype(array.dtype, np.integer)
    array = np.ascontiguousarray(array, np.int32 if whole else np.float32)
    return expr.const(array, list(array.shape), expr.NCHW, expr.int if whole else expr.float)
