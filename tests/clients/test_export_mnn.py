"""Exports to MNN: clipq's integers are in the file, MNN gives the model's embeddings from it, failures are typed."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from once import made_once
from tiny_models import build

import clipq
from clipq.errors import ExportError, MissingPackageError
from clipq.exports import mnn
from clipq.exports.exporting import Export, export
from clipq.exports.mnn_file import MnnFile
from clipq.modules.layers import QLinear

for _package in ("MNN", "onnxscript"):
    pytest.importorskip(_package)

pytestmark = pytest.mark.clients

SMALL, PIXELS = "transformers ViT", (3, 32, 32)


def exported(name: str, precision: str, folder: Path, **options) -> Export:
    return export(clipq.quantize(build(name), precision), folder / "out", "mnn", timed=False, **options)


@pytest.mark.parametrize(
    ("name", "precision", "least"),
    [
        ("open_clip CLIP", "fp16", 0.9999),
        ("open_clip CLIP", "int4", 0.99999),
        ("transformers SigLIP", "int8", 0.999),
    ],
)
def test_embeddings_in_mnn(name, precision, least, tmp_path):
    found = exported(name, precision, tmp_path)
    for tower, parity in found.parity.items():
        assert parity.worst >= least, (tower, parity)
        assert f"{tower}.mnn" in found.files


def test_both_towers_in_one_graph(tmp_path):
    found = exported("open_clip CLIP", "int8-weight-only", tmp_path, layout="together")
    assert set(found.parity) == {"image", "text"}
    assert min(parity.worst for parity in found.parity.values()) >= 0.99999


@pytest.fixture(scope="module")
def uneven() -> clipq.Model:
    """A model whose rows' largest integers are anything from 127 down: MNN would round them to others."""
    module = clipq.quantize(build(SMALL), "int8-weight-only")
    chance = torch.Generator().manual_seed(0)
    for layer in (part for part in module.modules() if isinstance(part, QLinear)):
        rows = layer.qweight.reshape(len(layer.qweight), -1)
        most = torch.randint(40, 128, (len(rows), 1), generator=chance)
        layer.set_integers(rows.maximum(-most).minimum(most).to(torch.int8), layer.weight_scale, None)
        layer.drop_kernel()
    return clipq.Model(module)


@pytest.mark.parametrize("beside", [False, True], ids=["in the file", "beside it"])
def test_integers_and_scales_are_those_of_clipq(uneven, beside, tmp_path, monkeypatch):
    if beside:  # as MNN writes models above 2 GB
        run = mnn._run
        monkeypatch.setattr(mnn, "_run", lambda *given: run(*given[:-1], [*given[-1], "--saveExternalData"]))
    found = export(uneven, tmp_path / "out", "mnn", timed=False)
    assert ("image.mnn.weight" in found.files) == beside
    assert found.parity["image"].worst >= 0.999999
    stored = list(MnnFile(tmp_path / "out" / "image.mnn").weights().values())
    held = {(one.buffer[one._integers_begin() :].tobytes(), one.scales.tobytes()) for one in stored}
    layers = [
        part for name, part in uneven.module.named_modules() if isinstance(part, QLinear) and "pooler" not in name
    ]
    assert len(stored) == len(layers) == 13  # the pooler is no part of the embedding
    for layer in layers:
        unsigned = (layer.qweight.to(torch.int16) + 128).to(torch.uint8)
        assert (unsigned.numpy().tobytes(), layer.weight_scale.float().numpy().tobytes()) in held


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """The same integers, with and without int8 activations."""
    places = {
        precision: made_once(tmp_path_factory, f"mnn-{precision}", partial(exported, SMALL, precision))
        for precision in ("int8", "int8-weight-only")
    }
    return {precision: folder / "out" / "image.mnn" for precision, folder in places.items()}


def test_only_dynamic_precisions_quantize_their_inputs(files):
    x = {"pixel_values": np.random.default_rng(0).standard_normal((5, *PIXELS), np.float32)}
    assert {name: MnnFile(path).code for name, path in files.items()} == {
        "int8": mnn.DYNAMIC,
        "int8-weight-only": mnn.FLOAT,
    }
    rounded, exact = (mnn.open_graph(path, 1)(x, "image_embeds") for path in files.values())
    assert 1e-4 < np.abs(rounded - exact).max() / np.abs(exact).max() < 0.1


@pytest.fixture(scope="module")
def good(files) -> bytes:
    return files["int8"].read_bytes()


@pytest.mark.parametrize("damage", ["empty", "half", "a piece short", "zeros", "another kind", "its end changed"])
def test_a_damaged_file_is_refused(good, damage, tmp_path):
    bytes_of = {
        "empty": b"",
        "half": good[: len(good) // 2],
        "a piece short": good[:-2000],
        "zeros": bytes(10000),
        "another kind": b"\x89PNG\r\n\x1a\n" + good,
        "its end changed": good[:-2000] + bytes(byte ^ 0x5A for byte in good[-2000:]),
    }
    path = tmp_path / "image.mnn"
    path.write_bytes(bytes_of[damage])
    with pytest.raises(ExportError, match="no .mnn file, or a damaged one"):
        mnn.open_graph(path, 1)


def test_names_that_are_not_in_the_file(good, tmp_path):
    (path := tmp_path / "image.mnn").write_bytes(good)
    with pytest.raises(ExportError, match="no graph from pixels to image_embeds"):
        mnn.open_graph(path, 1)({"pixels": np.zeros((1, *PIXELS), np.float32)}, "image_embeds")


def test_an_operator_that_mnn_lacks_is_named(tmp_path):
    import onnx
    from onnx import helper

    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Foo", ["x"], ["y"], domain="somewhere")], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("somewhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "graph.onnx")
    with pytest.raises(ExportError, match="Not Support: .*Foo"):
        mnn.convert(tmp_path / "graph.onnx", tmp_path / "image", frozenset())
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


def test_static_ranges_are_refused_by_the_layer(tmp_path):
    module = clipq.quantize(build("timm vision_transformer"), "int8-static", calibration=torch.rand(8, 3, 160, 160))
    with pytest.raises(ExportError, match="static inputs, for which 'mnn' has no form. It has one for int8, "):
        export(module, tmp_path / "out", "mnn", timed=False)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "MNN", None)
    with pytest.raises(MissingPackageError, match=r"needs the package MNN .*pip install 'clipq\[mnn\]'"):
        exported(SMALL, "fp32", tmp_path)


def test_nothing_is_installed_on_the_way(tmp_path, monkeypatch):
    """MNN's own command runs `pip install` of a package that reports conversions; clipq's way does not."""
    (pip := tmp_path / "bin" / "pip").parent.mkdir()
    pip.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    pip.chmod(0o755)
    monkeypatch.setenv("PATH", str(pip.parent), prepend=":")
    exported(SMALL, "fp32", tmp_path)
    assert not (tmp_path / "called").exists()
