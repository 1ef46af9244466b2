"""What other libraries make of a folder that clipq wrote: the model, or an error; never other numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import OPEN_CLIP, TWO_TOWERS, assert_same, embeddings, model, tokenizer_spec

import clipq
from clipq.files.header import GUARDED_FILE, MODEL_FILE
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


WITHOUT_CLIPQ = """
import json, sys, transformers

ways = {"plain": {}, "forced": {"ignore_mismatched_sizes": True}, "pickled": {"use_safetensors": False}}
found = {}
for name, folder, kinds in json.loads(sys.argv[1]):
    for kind in kinds:
        for way, options in ways.items():
            try:
                getattr(transformers, kind).from_pretrained(folder, **options)
            except OSError as error:
                found[f"{name} {kind} {way}"] = str(error)
            else:
                found[f"{name} {kind} {way}"] = "loaded"
assert "clipq" not in sys.modules
print(json.dumps(found))
"""


def test_without_clipq_every_class_of_transformers_refuses_quantized_models(tmp_path):
    """transformers skips a quant_method that it does not know: int8 numbers must not be there for it to find."""
    work = []
    for name, kinds in CLASSES.items():
        for precision in ("int8", {"image": "int4", "text": "fp32"}):
            folder = tmp_path / f"clip-{len(work)}"  # a name that transformers could take for a kind of model
            saved = model(name, precision)
            work.append((f"{name} {precision}", str(save(saved, folder)), kinds))
            assert not {"model.safetensors", "pytorch_model.bin"} & {path.name for path in folder.iterdir()}
            assert_same(saved, clipq.load(folder))
    command = [sys.executable, "-I", "-c", WITHOUT_CLIPQ, json.dumps(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == 3 * 2 * sum(map(len, CLASSES.values()))
    assert {one for one in answers.values() if not one.startswith("Error no file named ")} == set()


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


def test_the_label_names_clipq_and_is_where_each_class_looks(tmp_path):
    config = config_of(save(model(TWO_TOWERS), tmp_path / "clip"))
    label = config["quantization_config"]
    assert label["quant_method"] == "clipq"
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
    if (folder / GUARDED_FILE).exists():
        (folder / GUARDED_FILE).rename(folder / MODEL_FILE)
    label = {"quant_method": "compressed-tensors", "format": "int-quantized", "clipq_version": "0.2.0"}
    config = {**saved.module.config.to_dict(), "quantization_config": label}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    assert_same(saved, clipq.load(folder, precision))
