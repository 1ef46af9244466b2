"""What a float host refuses, its quantized modules refuse; what it takes, they take."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
from tiny_models import BUILDERS, VARIANTS, build
from torch import Tensor, nn

import clipq
from clipq.errors import ClipqWarning
from clipq.hosts import find_host

IMAGE = [*BUILDERS, "timm scales", "transformers CLIP image", "transformers SigLIP image"]
TEXT = [name for name in BUILDERS if find_host(build(name)).context_length(build(name)) and "SigLIP" not in name]
TEXT += [name for name in VARIANTS if "text" in name and "SigLIP" not in name]


@functools.cache
def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """A model in float, and quantized."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipqWarning)
        return build(name), clipq.quantize(build(name))


def refusal(call, module: nn.Module, x: Tensor) -> str:
    """Why `x` was refused, or ""."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transformers casts complex pixels, of which torch warns
            found = call(module, x)
    except Exception as error:
        return repr(error)
    return "" if found.isfinite().all() else "not finite"


def odd_pixels(channels: int, size: int) -> dict[str, Tensor]:
    right, random = (2, channels, size, size), torch.randn
    return {
        "right": random(right),
        "a dimension too many": random(2, 1, *right[1:]),
        "two images in one row": random(1, 2, *right[1:]),
        "no batch": random(right[1:]),
        "no channels": random(size, size),
        "height 0": random(2, channels, 0, size),
        "5 x 5": random(2, channels, 5, 5),
        "one channel": random(2, 1, size, size),
        "four channels": random(2, 4, size, size),
        "channels last": random(2, size, size, channels),
        "larger": random(2, channels, size + 16, size + 16),
        "a little larger": random(2, channels, size + 3, size + 3),
        "bytes": torch.randint(255, right, dtype=torch.uint8),
        "bool": torch.ones(right, dtype=torch.bool),
        "complex": random(right, dtype=torch.complex64),
    }


@pytest.mark.parametrize("name", IMAGE)
def test_pixels_that_a_float_tower_refuses(name):
    module, int8 = pair(name)
    host = find_host(module)
    for what, x in odd_pixels(*host.pixel_shape(module)[:2]).items():
        theirs, ours = (refusal(host.encode_image, one, x) for one in (module, int8))
        assert bool(theirs) == bool(ours), f"{what}: float says {theirs or 'yes'}, int8 {ours or 'yes'}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@torch.no_grad()
def test_pixels_of_other_floats_are_cast(dtype):
    _, int8 = pair("open_clip CLIP")
    x = torch.randn(2, 3, 32, 32).to(dtype)
    assert torch.equal(int8.encode_image(x), int8.encode_image(x.float()))


def odd_ids(vocabulary: int, context: int) -> dict[str, Tensor]:
    right = torch.zeros(2, context, dtype=torch.long)
    right[:, 0], right[:, 3] = 5, vocabulary - 1

    def put(place: int, value: int) -> Tensor:
        ids = right.clone()
        ids[0, place] = value
        return ids

    return {
        "right": right,
        "int32": right.int(),
        "below 0": put(1, -1),
        "below 0 after the end": put(5, -1),
        "too high": put(1, vocabulary + 7),
        "too high after the end": put(5, vocabulary),
        "one token": right[:, :1],
        "short": right[:, :7],
        "long": right.repeat(1, 2),
        "no tokens": right[:, :0],
        "float": right.float(),
        "bool": right.bool(),
        "bytes": right.clamp(max=90).to(torch.uint8),
    }


@pytest.mark.parametrize("name", TEXT)
def test_ids_that_a_float_tower_refuses(name):
    module, int8 = pair(name)
    host = find_host(module)
    call = (lambda one, ids: one.encode_text(ids)) if host.name == "open_clip" else host.encode_text
    for what, ids in odd_ids(host.vocabulary(module), host.context_length(module)).items():
        theirs, ours = (refusal(call, one, ids) for one in (module, int8))
        assert bool(theirs) == bool(ours), f"{what}: float says {theirs or 'yes'}, int8 {ours or 'yes'}"


@pytest.mark.parametrize(
    ("name", "taken"),
    [("open_clip CLIP", False), ("open_clip ResNet", False), ("open_clip ConvNeXt", True)]
    + [("timm vision_transformer", True), ("timm scales", True), ("transformers SigLIP", False)]
    + [("transformers CLIP", False), ("transformers ViT", False), ("transformers DINOv2", True)],
)
def test_any_size_is_what_the_float_tower_takes(name, taken):
    module, _ = pair(name)
    host = find_host(module)
    channels, size, _ = host.pixel_shape(module)
    assert host.any_size(module) is taken
    assert bool(refusal(host.encode_image, module, torch.randn(1, channels, size + 32, size + 32))) is not taken


def test_a_patch_embedding_that_is_strict_takes_one_size():
    import timm

    module = timm.create_model("test_vit", pretrained=False, num_classes=0, dynamic_img_size=False, in_chans=1)
    host = find_host(module)
    assert not host.any_size(module)
    assert host.pixel_shape(module) == (1, 160, 160)


@pytest.mark.parametrize("name", TEXT[:3] + ["transformers CLIP", "transformers SigLIP"])
def test_the_vocabulary_is_that_of_the_embedding(name):
    for module in pair(name):
        assert find_host(module).vocabulary(module) == (49408 if name.startswith("open_clip") else 100)
