"""What other libraries make of a folder that clipq wrote: the model, or an error; never other numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import OPEN_CLIP, TWO_TOWERS, assert_same, embeddings, model, tokenizer_spec

import clipq
from clipq.files.saving import is_clipq_config, save
from clipq.models import Model

PREPROCESSING = {"kind": "open_clip", "size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
CLASSES = {
    TWO_TOWERS: (
        "AutoModel",
        "CLIPModel",
        "CLIPVisionModel",
        "CLIPVisionModelWithProjection",
        "CLIPTextModel",
        "CLIPTextModelWithProjection",
        "AutoModelForZeroShotImageClassification",
    ),
    "transformers SigLIP": ("AutoModel", "SiglipModel", "SiglipVisionModel", "SiglipTextModel"),
    "transformers ViT": ("AutoModel", "ViTModel", "ViTForImageClassification", "AutoModelForImageClassification"),
    "transformers DINOv2": ("AutoModel", "Dinov2Model"),
}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "precision", ["int8", "int8-weight-only", {"image": "int8", "text": "fp32"}], ids=["int8", "weights", "mixed"]
)
def test_every_class_of_transformers_refuses_int8(name, precision, tmp_path):
    import transformers

    saved = model(name, precision)
    folder = save(saved, tmp_path / "clip")  # a name that transformers could take for a kind of model
    for kind in CLASSES[name]:
        with pytest.raises(ValueError, match="has no `quant_method` attribute"):
            getattr(transformers, kind).from_pretrained(folder)
    assert_same(saved, clipq.load(folder))


@pytest.mark.parametrize("kind", ["AutoModel", "CLIPModel", "CLIPVisionModel"])
def test_transformers_refuses_int8_models_of_open_clip(kind, tmp_path):
    import transformers

    folder = save(model(OPEN_CLIP, preprocessing=PREPROCESSING), tmp_path / "clip")
    with pytest.raises(ValueError, match="has no `quant_method` attribute|Unrecognized model"):
        getattr(transformers, kind).from_pretrained(folder)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_float_folder_is_one_of_transformers(name, precision, tmp_path):
    from transformers import AutoModel

    saved = model(name, precision, **({"tokenizer": tokenizer_spec()} if name == TWO_TOWERS else {}))
    folder = save(saved, tmp_path / "float")
    assert "quantization_config" not in config_of(folder)
    read, found = AutoModel.from_pretrained(folder, dtype=saved.module.dtype, output_loading_info=True)
    assert not found["missing_keys"]
    weights, expected = read.state_dict(), saved.module.state_dict()
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], tensor.to(weights[name].dtype)) for name, tensor in expected.items())
    for one, other in zip(embeddings(saved), embeddings(Model(read)), strict=True):
        assert torch.allclose(one, other, atol=1e-5 if precision == "fp32" else 0.05)
    assert_same(saved, clipq.load(folder, precision))


def test_open_clip_refuses_int8_and_reads_float(tmp_path):
    import open_clip

    int8, half = (
        save(model(OPEN_CLIP, precision, preprocessing=PREPROCESSING), tmp_path / precision)
        for precision in ("int8", "fp16")
    )
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\).*weight_scale"):
        open_clip.create_model(f"local-dir:{int8}")
    read = open_clip.create_model(f"local-dir:{half}").eval()
    expected = clipq.load(half, "fp32")
    for one, other in zip(embeddings(expected), embeddings(Model(read, config=expected.config)), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_timm_refuses_int8(tmp_path):
    import timm

    folder = save(model("timm vision_transformer"), tmp_path / "vit")
    with pytest.raises((TypeError, RuntimeError)):
        timm.create_model(f"local-dir:{folder}", pretrained=True)
    with pytest.raises(RuntimeError):
        timm.create_model("test_vit", num_classes=0, checkpoint_path=folder / "model.safetensors")


# -- the label ------------------------------------------------------------------------------------------------------


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text("utf-8"))


def test_the_label_names_no_method_and_is_where_each_class_looks(tmp_path):
    config = config_of(save(model(TWO_TOWERS), tmp_path / "clip"))
    label = config["quantization_config"]
    assert "quant_method" not in label
    assert label["read_by"] == "clipq.load"
    assert config["vision_config"]["quantization_config"] == config["text_config"]["quantization_config"] == label
    assert is_clipq_config(config)


@pytest.mark.parametrize(
    ("settings", "ours"),
    [
        ({"clipq_version": "0.3"}, True),
        ({"quantization_config": {"quant_method": "compressed-tensors", "clipq_version": "0.2.0"}}, True),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, False),
        ({"quantization_config": None, "model_type": "clip"}, False),
        ({}, False),
    ],
)
def test_folders_of_every_version_are_known(settings, ours):
    assert is_clipq_config(settings) == ours


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_folder_of_clipq_0_2_is_read(precision, tmp_path):
    saved = model(TWO_TOWERS, precision)
    folder = save(saved, tmp_path / "old")
    label = {"quant_method": "compressed-tensors", "format": "int-quantized", "clipq_version": "0.2.0"}
    config = {**saved.module.config.to_dict(), "quantization_config": label}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    assert_same(saved, clipq.load(folder, precision))
