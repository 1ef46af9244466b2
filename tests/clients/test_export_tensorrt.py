"""`clipq.export` to TensorRT: the graph has Q/DQ where TensorRT fuses them. TensorRT itself is not run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from once import made_once
from tiny_models import build

import clipq

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = [
    pytest.mark.clients,
    pytest.mark.filterwarnings("ignore:fp8 is emulated:clipq.errors.ClipqWarning"),
]

INTEGERS = {"int8-static-symmetric": onnx.TensorProto.INT8, "fp8-static": onnx.TensorProto.FLOAT8E4M3FN}


class Graph:
    """An ONNX graph by its values: who makes each, and the initializers."""

    def __init__(self, path: Path):
        self.model = onnx.load(path)
        self.nodes = list(self.model.graph.node)
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.stored = {one.name: one for one in self.model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        self.types = {one.name: one.type.tensor_type.elem_type for one in inferred.value_info}

    def above(self, name: str) -> onnx.NodeProto | None:
        """Who makes a value, looking through what only moves numbers."""
        node = self.maker.get(name)
        while node is not None and node.op_type in ("Transpose", "Reshape", "Identity"):
            node = self.maker.get(node.input[0])
        return node


@pytest.fixture(scope="module", params=INTEGERS)
def graph(request, tmp_path_factory) -> tuple[Graph, int]:
    folder = made_once(tmp_path_factory, f"tensorrt-{request.param}", partial(exported, request.param)) / "out"
    return Graph(folder / "image.onnx"), INTEGERS[request.param]


def exported(precision: str, folder: Path) -> None:
    torch.manual_seed(0)
    own = clipq.Model(build("timm vision_transformer"))
    clipq.quantize(own, precision, calibration=torch.randn(8, *own.host.pixel_shape(own.module)))
    found = clipq.export(own, folder / "out", "tensorrt", timed=False)
    assert found.report["note"] == "compared in ONNX Runtime; TensorRT itself was not run"


def test_both_inputs_of_each_quantized_product_are_dequantized(graph):
    found, integers = graph
    products = [node for node in found.nodes if node.op_type in ("MatMul", "Gemm")]
    quantized = 0
    for node in products:
        rows, weight = (found.above(name) for name in node.input[:2])
        ends = [end is not None and end.op_type == "DequantizeLinear" for end in (rows, weight)]
        if not any(ends):
            continue  # attention's own products stay float
        quantized += 1
        assert all(ends)
        assert found.maker[rows.input[0]].op_type == "QuantizeLinear"
        assert found.stored[weight.input[0]].data_type == integers
    assert quantized == 6 * 4 + 1  # of each block qkv, proj, fc1, fc2; and the patches


def test_no_zero_points_and_a_scale_for_each_channel_of_a_weight(graph):
    found, _ = graph
    for node in found.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale = found.stored[node.input[1]]
        if len(node.input) > 2:
            assert not np.frombuffer(found.stored[node.input[2]].raw_data, np.uint8).any()
        if node.input[0] in found.stored:
            axis = next(one.i for one in node.attribute if one.name == "axis")
            assert list(scale.dims) == [found.stored[node.input[0]].dims[axis]]
        else:
            assert not scale.dims  # one for the whole input


def test_what_sums_over_rows_stays_float(graph):
    found, _ = graph
    sums = [node for node in found.nodes if node.op_type in ("LayerNormalization", "Softmax")]
    assert sums
    assert all(found.types[node.output[0]] == onnx.TensorProto.FLOAT for node in sums)
