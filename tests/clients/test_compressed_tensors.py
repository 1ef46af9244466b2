"""Folders in the format of compressed-tensors: refused by name, and never taken for float models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_models import build

import clipq
from clipq.errors import CheckpointError, QuantizationError
from clipq.files.header import GUARDED_FILE

pytest.importorskip("compressed_tensors")

pytestmark = pytest.mark.clients


@pytest.fixture
def folder(tmp_path) -> Path:
    """The int8 weights of a ViT as compressed-tensors keeps them, the patch embedding as a float model has it."""
    module = build("transformers ViT")
    module.save_pretrained(tmp_path / "hf")
    floats = load_file(tmp_path / "hf" / "model.safetensors")
    clipq.save(clipq.quantize(module), tmp_path / "int8")
    tensors = {k: v for k, v in load_file(tmp_path / "int8" / GUARDED_FILE).items() if "patch" not in k}
    patches = {name: tensor for name, tensor in floats.items() if "patch" in name}
    save_file({**tensors, **patches}, tmp_path / "hf" / "model.safetensors", {"format": "pt"})
    label = json.loads((tmp_path / "int8" / "config.json").read_text("utf-8"))["quantization_config"]
    groups = label["config_groups"]
    groups["group_0"]["targets"] = [name for name in groups["group_0"]["targets"] if "patch" not in name]
    label |= {"quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed"}
    config = json.loads((tmp_path / "hf" / "config.json").read_text("utf-8"))
    del label["clipq_version"], label["read_by"]
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, "quantization_config": label}))
    return tmp_path / "hf"


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_load_refuses_them(folder, precision):
    with pytest.raises(CheckpointError, match="hf' is quantized already, by compressed-tensors"):
        clipq.load(folder, precision)


def test_quantize_refuses_what_transformers_made_of_them(folder):
    from transformers import AutoModel

    module = AutoModel.from_pretrained(folder)
    with pytest.raises(QuantizationError, match="weight is torch.int8, so quantized already"):
        clipq.quantize(module)
