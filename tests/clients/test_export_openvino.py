"""`clipq.export` to OpenVINO: its IR gives the model's embeddings, and rows are quantized as the precision says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from export_helpers import parity
from once import made_once
from tiny_models import build

import clipq
from clipq.errors import ExportError
from clipq.exports import exporting, graph_files, targets

openvino = pytest.importorskip("openvino")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.clients

WORST = {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.999, "int8-weight-only": 0.99999, "int8-static": 0.998}
GROUPS = {"int8": "32", "int8-weight-only": "0", "fp32": None}


def exported(precision: str, folder: Path, name: str = "transformers CLIP") -> exporting.Export:
    torch.manual_seed(0)
    own, data = clipq.Model(build(name)), {"image": torch.randn(8, 3, 32, 32), "text": torch.randint(90, (8, 16))}
    clipq.quantize(own, precision, calibration=data if "static" in precision else None)
    return clipq.export(own, folder / "out", "openvino", timed=False)


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Callable[[str], Path]:
    """A function that gives the folder of a precision. Not to be changed."""
    return lambda precision: made_once(tmp_path_factory, f"openvino-{precision}", partial(exported, precision)) / "out"


@pytest.mark.parametrize("precision", WORST)
def test_each_precision_gives_the_models_embeddings(exports, precision):
    folder = exports(precision)
    for tower, found in parity(folder).items():
        assert found["worst"] >= WORST[precision], tower
    assert {"image.xml", "image.bin", "text.xml", "text.bin"} < {path.name for path in folder.iterdir()}
    assert not list(folder.glob("*.onnx"))


@pytest.mark.parametrize("precision", GROUPS)
def test_the_file_says_in_which_groups_rows_are_quantized(exports, precision):
    model = openvino.Core().read_model(exports(precision) / "image.xml")
    place = ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"]
    assert (model.get_rt_info(place).astype(str) if model.has_rt_info(place) else None) == GROUPS[precision]
    if GROUPS[precision]:
        compiled = openvino.Core().compile_model(model, "CPU")
        assert str(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")) == GROUPS[precision]


@pytest.mark.parametrize("body", [b"", b"<?xml version='1.0'?><net/>", b"\x00" * 64])
def test_a_foreign_file_does_not_open(tmp_path, body):
    (tmp_path / "image.xml").write_bytes(body)
    target = targets.TARGETS["openvino"]
    with pytest.raises(ExportError, match="openvino does not load"):
        graph_files.opened(target, tmp_path / "image.xml")


def test_int4_is_refused(tmp_path):
    with pytest.raises(ExportError, match="int4 weights and float inputs, for which 'openvino' has no form"):
        exported("int4", tmp_path, "timm vision_transformer")
