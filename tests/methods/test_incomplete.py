"""What `quantize` says of models whose weights it can make int8 only in part, or not at all; 1x1 convolutions."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from tiny_models import build
from tiny_models import config as config_of
from torch import nn

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.schemes import Scheme
from clipq.errors import QuantizationError
from clipq.methods.coverage import coverage
from clipq.methods.quantization import quantize
from clipq.methods.recipes import recipe_of
from clipq.modules.convolutions import QPointwise
from clipq.modules.layers import QLinear
from clipq.modules.raw import fingerprint


def of_timm(name: str, **options: object) -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=0, **options).eval()


def without_1x1() -> nn.Module:
    """A ResNet of 3x3 convolutions alone: nothing of it can become int8."""
    small = {"channels": (16, 16, 16, 16), "stem_width": 8}
    return of_timm("resnet10t", avg_down=False, down_kernel_size=3, **small)


def quantized(module: nn.Module, precision: object = "int8") -> tuple[nn.Module, list[str]]:
    """The quantized module, and what clipq warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantize(module, precision)
    return module, [str(one.message) for one in caught if "stay float" in str(one.message)]


@pytest.mark.parametrize("precision", ["int8", "int8-symmetric", "int8-weight-only"])
def test_a_tower_of_which_nothing_would_become_int8_is_refused_before_anything_changes(precision: str) -> None:
    module = without_1x1()
    before = fingerprint(module)
    with pytest.raises(QuantizationError) as refused:
        quantize(module, precision)
    message = str(refused.value)
    assert message.startswith(f"nothing of the image tower of this ResNet can become '{precision}'")
    assert "precision={'image': 'fp16'}" in message
    assert fingerprint(module) == before
    quantize(module, {"image": "fp16"})  # what the message says to do
    assert next(module.parameters()).dtype == torch.float16


def test_the_other_towers_precision_does_not_help_a_tower_without_int8() -> None:
    module = build("open_clip CLIP")
    module.visual = without_1x1()
    with pytest.raises(QuantizationError, match="nothing of the image tower of this CLIP"):
        quantize(module, "int8")
    assert not any(isinstance(part, QLinear) for part in module.modules())
    quantize(module, {"image": "fp32", "text": "int8"})
    assert coverage(module, count_macs=False).towers["text"].weight_share > 0.9


def test_a_small_share_is_said_once_even_where_what_stays_float_is_meant_to() -> None:
    """The convolutions of a ResNet's blocks are of a class that clipq does not know: they are meant to stay float."""

    class Convolution(nn.Module):
        def __init__(self, conv: nn.Conv2d):
            super().__init__()
            self.weight, self.options = conv.weight, {"stride": conv.stride, "padding": conv.padding}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(x, self.weight, **self.options)

    module = of_timm("test_resnet")
    for parent in list(module.modules()):
        for name, part in list(parent.named_children()):
            if type(part) is nn.Conv2d and part.kernel_size == (3, 3):
                setattr(parent, name, Convolution(part))
    module, said = quantized(module)
    tower = coverage(module, count_macs=False).towers["image"]
    assert 0 < tower.weight_share < 0.5 and all(left.intended for left in tower.left_float)
    assert len(said) == 1 and said[0].startswith(f"{1 - tower.weight_share:.1%} of the image tower's matrix weights")
    assert f"{tower.left_float[0].name} (parameter used directly by the host)" in said[0]


@pytest.mark.parametrize("name", ["test_nfnet", "test_resnet", "test_byobnet"])
def test_a_small_share_of_convolutions_is_said_once(name: str) -> None:
    module, said = quantized(of_timm(name))
    share = coverage(module, count_macs=False).towers["image"].weight_share
    assert 0 < share < 0.5
    assert len(said) == 1 and said[0].startswith(f"{1 - share:.1%} of the image tower's matrix weights stay float")


def test_a_large_share_is_not_said_where_what_stays_float_is_meant_to() -> None:
    assert quantized(build("transformers CLIP"))[1] == []


def test_embeddings_that_were_to_stay_float_do_not_count() -> None:
    embeddings_float = Scheme("mine", *(getattr(PRECISIONS["int8"], k) for k in ("weights", "activations")), None)
    module, said = quantized(build("open_clip CLIP"), embeddings_float)
    assert coverage(module, count_macs=False).towers["text"].weight_share < 0.1 and said == []


CONVOLUTIONAL = {
    "test_efficientnet": 0.61,
    "test_convnext": 0.79,
    "convnext_atto": 0.89,
    "mobilenetv3_small_050": 0.94,
}


@pytest.mark.parametrize(("name", "share"), CONVOLUTIONAL.items())
def test_1x1_convolutions_become_int8(name: str, share: float) -> None:
    module, said = quantized(of_timm(name, **({"conv_mlp": True} if name == "convnext_atto" else {})))
    tower = coverage(module, count_macs=False).towers["image"]
    assert tower.weight_share == pytest.approx(share, abs=0.02)
    assert len(said) == 1 and "Conv2d of a kind clipq does not quantize" in said[0]  # the others


def test_the_products_of_1x1_convolutions_are_counted() -> None:
    module = of_timm("test_efficientnet")
    before = coverage(module).towers["image"]
    after = coverage(quantized(module)[0]).towers["image"]
    assert (before.quantized_macs, before.macs) == (0, after.macs)
    assert after.quantized_macs == sum(
        part.qweight.numel() * size for part, size in pixels_of(module) if isinstance(part, QPointwise)
    )


def pixels_of(module: nn.Module) -> list[tuple[nn.Module, int]]:
    """Each module that gives feature maps, and of how many pixels."""
    found: list[tuple[nn.Module, int]] = []
    for part in module.modules():
        part.register_forward_hook(lambda part, _, y: found.append((part, y[0, 0].numel())) if y.ndim == 4 else None)
    with torch.no_grad():
        module(torch.zeros(1, 3, 160, 160))
    return found


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_resnet"])
def test_a_convolutional_model_stays_close_and_is_read_back_with_the_same_bits(name: str, tmp_path) -> None:
    module = of_timm(name)
    pixels = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        exact = module(pixels)
        found = quantized(module)[0](pixels)
        last = module(pixels.contiguous(memory_format=torch.channels_last))
    assert torch.cosine_similarity(exact, found).min() > 0.99
    assert torch.cosine_similarity(last, found).min() > 0.999
    shapes = {key: value.shape for key, value in of_timm(name).state_dict().items()}
    clipq.save(module, tmp_path / "model.safetensors")
    again = clipq.load(tmp_path / "model.safetensors")
    assert fingerprint(again.module) == fingerprint(module)
    assert recipe_of(again.module) == recipe_of(module)
    assert all(part.weight.shape == shapes[f"{key}.weight"] for key, part in convolutions(again.module))
    with torch.no_grad():
        assert torch.equal(again.module(pixels), found)


def convolutions(module: nn.Module) -> list[tuple[str, QPointwise]]:
    return [(key, part) for key, part in module.named_modules() if isinstance(part, QPointwise)]


def test_a_file_from_before_1x1_convolutions_is_read_with_them_float(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(QPointwise, "fits", staticmethod(lambda module: False))  # what wrote that file
    module = quantized(build("open_clip ResNet"))[0]
    assert not convolutions(module)
    config = {"arch": "tiny", **config_of("open_clip ResNet")}
    clipq.save(clipq.Model(module, config=config), tmp_path / "old.safetensors")
    monkeypatch.undo()
    again = clipq.load(tmp_path / "old.safetensors").module
    assert not convolutions(again) and fingerprint(again) == fingerprint(module)


@pytest.mark.parametrize("size", [{"img_size": 128}, {"img_size": (64, 128)}, {"patch_size": 8}], ids=str)
def test_timm_can_change_the_input_size_of_a_quantized_model(size: dict) -> None:
    exact = of_timm("test_vit")
    module = quantize(copy.deepcopy(exact))
    for one in (exact, module):
        one.set_input_size(**size)
    pixels = torch.randn(2, 3, *module.patch_embed.img_size)
    with torch.no_grad():
        assert torch.cosine_similarity(exact(pixels), module(pixels)).min() > 0.99
        embedded = clipq.Model(module).encode_image(pixels)
        assert torch.cosine_similarity(module(pixels), embedded).min() > 0.999


@torch.no_grad()
def test_torch_compile_finds_no_cached_function_to_trace() -> None:
    model = clipq.Model(quantize(build("timm vision_transformer")))
    torch._dynamo.reset()
    torch._dynamo.utils.warn_once_cache.clear()
    pixels = torch.randn(1, 3, 160, 160)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = torch.compile(model.encode_image, backend="eager")(pixels)
    torch.testing.assert_close(found, model.encode_image(pixels), rtol=0, atol=1e-5)
