"""What `clipq.export` refuses, and that nothing is left of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from export_helpers import export, exported_once, model, one_block
from PIL import Image

import clipq
from clipq.errors import CheckpointError, ExportError, MissingPackageError, OutputError, SchemeError, UnknownNameError
from clipq.exports import forms, gate, layouts, orders, packages, targets
from clipq.inputs.images import spread

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.clients


def noise(path: Path, threads: int | None):
    return lambda inputs, output: np.random.default_rng(0).standard_normal((len(next(iter(inputs.values()))), 48), "f")


def broken(path: Path, threads: int | None):
    raise RuntimeError("this is no graph\nand more")


def failing(path: Path, threads: int | None):
    return lambda inputs, output: np.zeros((len(next(iter(inputs.values()))), 7), np.float32)


@pytest.mark.parametrize(
    ("opened", "message"),
    [(noise, "is not the model: worst cosine"), (broken, "does not load image.onnx: this is no graph$")]
    + [(failing, r"gives \[32, 7\] in its runtime, \[32, 48\] here")],
)
def test_an_export_that_is_another_model_is_removed(tmp_path, monkeypatch, opened, message):
    monkeypatch.setattr(orders, "target_named", lambda name: replace(targets.TARGETS["onnx"], open=opened))
    with pytest.raises(ExportError, match=message):
        export(one_block(), tmp_path / "out", towers=("image",))
    assert not list(tmp_path.iterdir())


def test_a_nan_does_not_pass():
    assert not gate.Parity(1, 1.0, float("nan"), 0.9, {}, {}).passed


REFUSED = [
    ("fp32", {"to": "onx"}, UnknownNameError, "unknown export target 'onx'. Did you mean 'onnx'"),
    ("fp32", {"layout": "imich"}, UnknownNameError, "Did you mean 'immich'"),
    ("fp32", {"to": "tensorrt", "layout": "immich"}, ExportError, "layout='immich' is for to='onnx'"),
    ("fp32", {"towers": ("txt",)}, UnknownNameError, "Did you mean 'text'"),
    ("fp32", {"towers": ()}, ExportError, "name some of these"),
    ("fp32", {"opset": 17}, SchemeError, "opset=17 is not allowed for 'onnx'; give one from 18 to 23"),
    ("bf16", {}, ExportError, "the image tower is 'bf16', which 'onnx' does not have; it has fp32, fp16"),
    (
        "nf4",
        {},
        ExportError,
        "nf4 weights and float inputs, for which 'onnx' has no form. It has one for int8, int8-best",
    ),
    ("fp8", {"to": "tensorrt"}, ExportError, "It has one for int8-static-symmetric"),
]


@pytest.mark.filterwarnings("ignore:groups or codebooks:clipq.errors.ClipqWarning")
@pytest.mark.parametrize(("precision", "options", "kind", "message"), REFUSED, ids=lambda one: str(one)[:30])
def test_what_is_refused_leaves_nothing(tmp_path, precision, options, kind, message):
    with pytest.raises(kind, match=message):
        export(model(precision=precision), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already and is no empty folder"):
        export(model(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_immich_needs_what_a_bare_module_lacks(tmp_path):
    with pytest.raises(ExportError, match="came with preprocessing and a tokenizer"):
        export(model(tokenizer=None, preprocessing={}), tmp_path / "out", layout="immich")


def test_a_tokenizer_whose_padding_is_seen(tmp_path):
    seen = model("open_clip CustomTextCLIP", tokenizer="ViT-B-32")
    seen.module.text.pool_type = "last"
    with pytest.raises(ExportError, match="sees what texts are padded with"):
        export(seen, tmp_path / "out")


def test_the_gate_prepares_no_more_than_it_compares(monkeypatch):
    of, opened = model(), []
    monkeypatch.setattr("clipq.methods.calibration.opened", lambda one: opened.append(one) or picture)
    picture = Image.new("RGB", (40, 40))
    assert len(gate.samples(of, ["image"])["image"]) == len(opened) == gate.SAMPLES
    given = torch.randn(100, 3, 32, 32)
    assert torch.equal(gate.samples(of, ["image"], given)["image"], given[spread(100, gate.SAMPLES)])


def test_a_missing_package_is_named_with_the_command():
    with pytest.raises(MissingPackageError, match=r"needs the package no_such_package .*pip install 'clipq\[onnx\]'"):
        packages.needed(["no_such_package"], "onnx", "to='onnx'")


def test_the_command_line_offers_every_target_and_layout():
    from clipq.cli import export as command

    assert set(command._TARGETS) == set(targets.TARGETS)
    assert set(command._LAYOUTS) == set(layouts.LAYOUTS)


def test_every_target_has_forms_for_some_precisions():
    for target in targets.TARGETS.values():
        assert target.folder or forms.precisions_for(target.forms)


def test_an_export_is_not_read_back(tmp_path_factory):
    folder = exported_once(tmp_path_factory, "open_clip CLIP", "int8")
    for path in (folder, folder / "image.onnx"):
        with pytest.raises(CheckpointError, match="is a model for another runtime, which clipq writes and does not"):
            clipq.load(path)
