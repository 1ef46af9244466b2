"""Sources that lack a weight, or hold quantized ones, are refused; they would become models of random numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import build
from torch import Tensor, nn

import clipq
from clipq.errors import CheckpointError, ClipqWarning, DownloadError
from clipq.loading.completeness import check_complete
from clipq.models import Model

PIXELS = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
NAMES = ["transformers CLIP", "transformers SigLIP", "transformers DINOv2", "transformers ViT"]
A_WEIGHT = {  # as transformers names it in the file
    "transformers CLIP": "visual_projection.weight",
    "transformers SigLIP": "text_model.head.bias",
    "transformers DINOv2": "layernorm.weight",
    "transformers ViT": "layernorm.weight",
}


def transformers_folder(module: nn.Module, folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """A folder that transformers wrote, with its tensors changed in place by `change`."""
    module.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def in_place_of(tensors: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    tensors.clear()
    tensors.update(others)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_weight_is_named(name, precision, tmp_path):
    folder = transformers_folder(build(name), tmp_path / "hf", lambda tensors: tensors.pop(A_WEIGHT[name]))
    with pytest.raises(CheckpointError, match=f"hf' lacks weights.*'{A_WEIGHT[name]}'. Get the complete files"):
        clipq.load(folder, precision)


def test_the_first_of_many_are_named_and_all_counted(tmp_path):
    folder = transformers_folder(
        build("transformers CLIP"),
        tmp_path / "hf",
        lambda tensors: in_place_of(tensors, {"logit_scale": torch.ones(())}),
    )
    with pytest.raises(CheckpointError, match=r"'text_model\.[^,]*', '[^,]*', '[^,]*', \.\.\. \(\d\d in all\)"):
        clipq.load(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_of_another_shape_is_named(name, tmp_path):
    folder = transformers_folder(
        build(name), tmp_path / "hf", lambda tensors: tensors.update({A_WEIGHT[name]: torch.zeros(3, 3)})
    )
    with pytest.raises(CheckpointError, match=f"hf' lacks weights.*another shape.*'{A_WEIGHT[name]}'"):
        clipq.load(folder)


@pytest.mark.parametrize("precision", ["int8", "int8-weight-only"])
@pytest.mark.parametrize("name", NAMES)
def test_a_quantized_state_dict_is_no_float_model(name, precision, tmp_path):
    state = clipq.quantize(build(name), precision).state_dict()
    folder = transformers_folder(build(name), tmp_path / "hf", lambda tensors: in_place_of(tensors, state))
    with pytest.raises(CheckpointError, match=r"hf' holds quantized weights.*qweight.*clipq.save\(module, path\)"):
        clipq.load(folder)


def test_int8_numbers_under_the_names_of_float_weights_are_refused(tmp_path):
    """A folder of clipq or compressed-tensors whose labels are lost: nothing is missing, only the scales too many."""
    clipq.save(clipq.quantize(build("transformers ViT")), tmp_path / "model.safetensors")
    state = load_file(tmp_path / "model.safetensors")
    folder = transformers_folder(
        build("transformers ViT"), tmp_path / "hf", lambda tensors: in_place_of(tensors, state)
    )
    with pytest.raises(CheckpointError, match="holds quantized weights.*weight_scale"):
        clipq.load(folder)


def test_a_folder_of_another_method_is_refused(tmp_path):
    """transformers skips a method that it does not know."""
    folder = transformers_folder(
        build("transformers ViT"),
        tmp_path / "hf",
        lambda tensors: tensors.update({"layers.0.mlp.fc1.weight_scale": torch.ones(128)}),
    )
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "mine"}}))
    with pytest.raises(CheckpointError, match="holds quantized weights.*layers.0.mlp.fc1.weight_scale"):
        clipq.load(folder)


@pytest.mark.skipif(find_spec("compressed_tensors") is not None, reason="tests/clients has what happens with it")
def test_a_method_whose_package_is_not_there_is_one_error(tmp_path):
    build("transformers ViT").save_pretrained(tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text("utf-8"))
    label = {"quant_method": "compressed-tensors", "config_groups": {}}
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, "quantization_config": label}))
    with pytest.raises(CheckpointError, match="hf' cannot be loaded: .*compressed-tensors"):
        clipq.load(tmp_path / "hf")


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_files_work(name, tmp_path):
    build(name).half().save_pretrained(tmp_path / "hf")
    model, expected = clipq.load(tmp_path / "hf", "fp32"), build(name).half().float()
    assert torch.equal(model.encode_image(PIXELS), Model(expected).encode_image(PIXELS))
    assert clipq.load(tmp_path / "hf").precision_name == "int8"


def test_buffers_that_older_files_hold_are_no_weights(tmp_path):
    positions = {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
    folder = transformers_folder(build("transformers CLIP"), tmp_path / "hf", lambda tensors: tensors.update(positions))
    assert clipq.load(folder, "fp32").towers == ("image", "text")


def test_a_classifier_without_a_pooler_works_and_says_what_is_not_there(tmp_path):
    classifier = build("transformers ViT classifier")
    classifier.save_pretrained(tmp_path / "hf")
    with pytest.warns(ClipqWarning, match="no weights for 'pooler.dense.bias', 'pooler.dense.weight': .*pooler_output"):
        model = clipq.load(tmp_path / "hf", "fp32")
    assert torch.allclose(model.encode_image(PIXELS), Model(classifier).encode_image(PIXELS), atol=1e-5)


@pytest.mark.parametrize("kind", ["CLIPForImageClassification", "SiglipForImageClassification"])
def test_an_image_classifier_is_no_model_of_two_towers(kind, tmp_path):
    """transformers makes both towers of its configuration, and only one is in the file."""
    import transformers

    family = "transformers CLIP" if kind.startswith("CLIP") else "transformers SigLIP"
    getattr(transformers, kind)(build(family).config).save_pretrained(tmp_path / "hf")
    with pytest.raises(CheckpointError, match="lacks weights.*text_model"):
        clipq.load(tmp_path / "hf")


@pytest.mark.parametrize("found", [{"mismatched_keys": {("a.weight", (1,), (2,))}}, {"mismatched_keys": ["a.weight"]}])
def test_both_forms_in_which_transformers_tells_of_shapes(found):
    with pytest.raises(CheckpointError, match="'a.weight'"):
        check_complete("x", found)


# -- open_clip is strict; what it says becomes one error that is not about downloads --------------------------------


def test_open_clip_folders_are_complete_or_refused(open_clip_folder):
    file = open_clip_folder / "open_clip_model.safetensors"
    whole = load_file(file)
    save_file({name: tensor for name, tensor in whole.items() if name != "visual.proj"}, file)
    with pytest.raises(CheckpointError, match=r"does not hold the weights of its model: .*\n?.*visual.proj"):
        clipq.load(open_clip_folder)
    save_file(clipq.quantize(build("open_clip CLIP QuickGELU")).state_dict(), file)
    with pytest.raises(CheckpointError, match="does not hold the weights of its model"):
        clipq.load(f"local-dir:{open_clip_folder}")
    save_file({name: tensor.half() for name, tensor in whole.items()}, file)
    assert clipq.load(open_clip_folder).precision_name == "int8"
    file.unlink()
    with pytest.raises(CheckpointError, match="does not hold the weights of its model"):
        clipq.load(open_clip_folder)


def test_weights_that_cannot_be_fetched_are_a_download_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="cannot be got"):
        clipq.load("someone/no-such-model")
