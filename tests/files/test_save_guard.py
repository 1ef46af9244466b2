"""Int8 modules are not written by a library that would read them back with newly initialised weights."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import hf_tokenizer
from huggingface_hub import PyTorchModelHubMixin
from tiny_models import build, open_clip_config
from torch import nn

import clipq
from clipq.errors import CheckpointError
from clipq.modules.layers import QuantizedModule

WHAT_TO_DO = r"Use clipq.save\(module, path\) and clipq.load\(path\)"


def weights(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin")]


def test_float_models_are_saved_as_ever(tmp_path):
    clipq.quantize(build("transformers ViT"), "fp16").save_pretrained(tmp_path)
    assert weights(tmp_path)


@pytest.mark.parametrize("options", [{"state_dict": {}}, {"variant": "int8"}, {"push_to_hub": True}], ids=str)
def test_what_would_write_another_file_is_refused(options, tmp_path):
    module = clipq.quantize(build("transformers ViT"))
    with pytest.raises(CheckpointError, match=f"{[*options][0]}=.* is not for a quantized model"):
        module.save_pretrained(tmp_path / "hf", **options)
    assert not (tmp_path / "hf").exists()


def test_a_folder_with_float_weights_is_refused(tmp_path):
    build("transformers ViT").save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=r"holds model\.safetensors, the weights of another model"):
        clipq.quantize(build("transformers ViT")).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_hosts_own_function_is_refused_without_clipqs(tmp_path):
    from transformers import PreTrainedModel

    module = clipq.quantize(build("transformers ViT"))
    with pytest.raises(CheckpointError, match=f"save_pretrained .* this ViTModel.*{WHAT_TO_DO}"):
        PreTrainedModel.save_pretrained(module, tmp_path)
    assert not weights(tmp_path)


def dual_encoder() -> tuple[nn.Module, nn.Module]:
    """A model of transformers around another, which alone is quantized."""
    from transformers import VisionTextDualEncoderModel

    inner = build("transformers CLIP image")
    return VisionTextDualEncoderModel(vision_model=inner, text_model=build("transformers CLIP text")).eval(), inner


class Published(nn.Module, PyTorchModelHubMixin):
    """Anybody's class that can be published."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = build("transformers CLIP")


def test_a_model_around_a_quantized_one_is_refused(tmp_path):
    outer, inner = dual_encoder()
    outer.save_pretrained(tmp_path / "float")
    clipq.quantize(inner)
    with pytest.raises(CheckpointError, match=f"this VisionTextDualEncoderModel.*{WHAT_TO_DO}"):
        outer.save_pretrained(tmp_path / "int8")
    assert not weights(tmp_path / "int8")
    outer.text_model.save_pretrained(tmp_path / "text")  # which was not quantized


def test_anybodys_class_with_the_mixin_of_the_hub_is_refused(tmp_path):
    published = Published()
    clipq.quantize(published.clip)
    with pytest.raises(CheckpointError, match=f"this Published.*{WHAT_TO_DO}"):
        published.save_pretrained(tmp_path)
    assert not weights(tmp_path)


def by_torch(module: nn.Module) -> nn.Module:
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [deepcopy, lambda module: pickle.loads(pickle.dumps(module)), by_torch],
    ids=["deepcopy", "pickle", "torch"],
)
def test_copies_work_as_before_and_are_saved_too(copied: Callable, tmp_path):
    module = clipq.quantize(build("transformers ViT"))
    copy = copied(module)
    assert type(copy) is type(module)
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    assert torch.equal(copy(pixels).last_hidden_state, module(pixels).last_hidden_state)
    copy.save_pretrained(tmp_path)
    assert torch.equal(clipq.load(tmp_path).module(pixels).last_hidden_state, module(pixels).last_hidden_state)


def test_the_state_dict_is_what_it_was(tmp_path):
    module = clipq.quantize(build("transformers ViT"))
    state = module.state_dict()
    expected = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    assert set(state) == expected
    assert {type(tensor) for tensor in state.values()} == {torch.Tensor}
    assert not any(part._state_dict_hooks for part in module.modules() if isinstance(part, QuantizedModule))
    torch.save(state, tmp_path / "state.pt")
    other = clipq.quantize(build("transformers ViT"))
    assert other.load_state_dict(torch.load(tmp_path / "state.pt")).missing_keys == []


# -- open_clip and timm: their own way of publishing ----------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*of the image tower's matrix weights stay float:clipq.errors.ClipqWarning")
@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_timm_would_load_without_the_weights_for_another_number_of_classes(name, tmp_path):
    import timm
    from timm.models import save_for_hf

    module = clipq.quantize(timm.create_model(name, num_classes=3).eval())
    with pytest.raises(CheckpointError, match=f"save_for_hf .* this {type(module).__name__}.*{WHAT_TO_DO}"):
        save_for_hf(module, tmp_path, safe_serialization="both")
    assert not weights(tmp_path)


def test_open_clip_refuses_what_it_saved_itself(tmp_path):
    """Its own function is let alone: reading back is strict."""
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf

    module = clipq.quantize(build("open_clip CLIP"))
    module.visual.image_mean = module.visual.image_std = (0.5, 0.5, 0.5)
    save_for_hf(module, hf_tokenizer(), open_clip_config(), tmp_path)
    assert weights(tmp_path)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*visual.conv1.weight"):
        open_clip.create_model(f"local-dir:{tmp_path}")
    with pytest.raises(CheckpointError, match="does not hold the weights of its model"):
        clipq.load(tmp_path)
