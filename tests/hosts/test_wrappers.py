"""Models with heads and in wrappers: they work, or one error says what to pass."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tiny_models import BUILDERS, build
from torch import Tensor, nn

import clipq
from clipq.errors import QuantizationError

VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES = {**VISION, "image_size": 32, "patch_size": 8}


def made(kind: str, config: str, **options: object) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    return getattr(transformers, kind)(getattr(transformers, config)(**options)).eval()


def with_head(kind: str) -> nn.Module:
    family = kind.partition("For")[0]
    return made(kind, f"{family}Config", **({"vision_config": SIZES} if family in ("CLIP", "Siglip") else SIZES))


def dinov3(kind: str = "DINOv3ViTModel") -> nn.Module:
    return made(kind, "DINOv3ViTConfig", **SIZES, num_register_tokens=2)


def getter() -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("test_vit", features_only=True, feature_cls="getter").eval()


HEADS = [
    *("CLIPForImageClassification", "SiglipForImageClassification", "ViTForImageClassification"),
    *("DeiTForImageClassification", "DeiTForImageClassificationWithTeacher", "Dinov2ForImageClassification"),
]


def close(one: Tensor, other: Tensor) -> bool:
    return torch.cosine_similarity(one.flatten(1), other.flatten(1)).min().item() > 0.999


@pytest.mark.parametrize("kind", HEADS)
@torch.no_grad()
def test_a_classifier_embeds_as_what_its_head_stands_on(kind):
    module, pixels = with_head(kind), torch.randn(2, 3, 32, 32)
    logits, exact = module(pixel_values=pixels).logits, clipq.Model(module).encode_image(pixels)
    assert exact.shape == (2, 64)
    model = clipq.Model(clipq.quantize(module))
    assert clipq.coverage(module).block_share == 1
    assert close(exact, model.encode_image(pixels))
    assert torch.allclose(logits, module(pixel_values=pixels).logits, atol=0.03)  # of two classes
    assert 0 < clipq.coverage(module).towers["image"].mac_share < 1


@torch.no_grad()
def test_a_classifier_is_saved_with_its_head(tmp_path):
    module, pixels = with_head("CLIPForImageClassification"), torch.randn(2, 3, 32, 32)
    clipq.quantize(module)
    loaded = clipq.load(clipq.save(module, tmp_path / "classifier.safetensors"))
    assert torch.equal(loaded.module(pixel_values=pixels).logits, module(pixel_values=pixels).logits)


@torch.no_grad()
def test_dinov3_embeds_as_its_pooled_output():
    module, pixels = dinov3(), torch.randn(2, 3, 32, 32)
    exact = module(pixels).pooler_output
    assert torch.allclose(clipq.Model(module).encode_image(pixels), exact, atol=1e-6)
    clipq.quantize(module)
    assert close(exact, clipq.Model(module).encode_image(pixels))
    assert clipq.coverage(module).weight_share > 0.9


FEATURES: dict[str, Callable[[], nn.Module]] = {
    "timm": getter,
    "DINOv2": lambda: made("Dinov2Backbone", "Dinov2Config", **SIZES),
    "DINOv3": lambda: dinov3("DINOv3ViTBackbone"),
}


@pytest.mark.parametrize("make", FEATURES.values(), ids=FEATURES)
@torch.no_grad()
def test_feature_maps_stay_close_and_are_no_embedding(make):
    module, pixels = make(), torch.randn(2, 3, 32, 32)
    if hasattr(module, "model") and not hasattr(module, "config"):
        pixels = torch.randn(2, *module.model.pretrained_cfg["input_size"])
    maps = lambda: getattr(found := module(pixels), "feature_maps", found)  # noqa: E731
    before = maps()
    assert clipq.quantize(module) is module
    assert clipq.coverage(module).weight_share > 0.9
    assert all(map(close, before, maps()))
    with pytest.raises(QuantizationError, match=r"feature maps and no embedding.*num_classes=0"):
        clipq.Model(module)


class Mine(nn.Module):
    """Somebody's own model around a host's."""

    def __init__(self, **parts: nn.Module):
        super().__init__()
        self.parts = nn.ModuleDict(parts)


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP", "timm vision_transformer"])
@pytest.mark.parametrize("use", [clipq.quantize, clipq.coverage, clipq.Model])
def test_what_to_pass_of_a_wrapper_that_is_not_known(name, use):
    wrapper = Mine(clip=build(name))
    with pytest.raises(QuantizationError, match=r"Mine is not a model.*pass module.get_submodule\('parts.clip'\)"):
        use(wrapper)
    use(wrapper.get_submodule("parts.clip"))


def test_every_model_of_a_wrapper_is_named():
    wrapper = Mine(one=build("transformers ViT"), head=nn.Linear(2, 2), other=build("open_clip CLIP"))
    with pytest.raises(QuantizationError, match=r"'parts.one'\) or module.get_submodule\('parts.other'\), which"):
        clipq.quantize(wrapper)
    with pytest.raises(QuantizationError, match=r"a timm ViT\.$"):
        clipq.quantize(Mine(head=nn.Linear(2, 2)))


@pytest.mark.parametrize("name", BUILDERS)
def test_a_models_own_parts_are_no_models_to_pass(name):
    from clipq.hosts import embedder, unwrapped

    module = build(name)
    assert embedder(module) is unwrapped(module) is module
    assert embedder(copy.deepcopy(module)) is not module
