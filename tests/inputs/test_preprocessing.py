"""Image preprocessing as data: the same tensor as the host's own transform gives."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from clipq.errors import CheckpointError, ClipqError, UnknownNameError
from clipq.inputs.preprocessing import build_preprocess, check_preprocessing, from_image_processor

OPEN_CLIP = {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic"}
TIMM = {"input_size": [3, 32, 32], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.9}


def picture(mode: str = "RGB", size: tuple[int, int] = (80, 50)) -> Image.Image:
    """A picture with edges and gradients; transparent and palette modes keep their peculiarities."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (10, 16, 3), dtype=torch.uint8).numpy()
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(size))
    return image.convert(mode)


MODES = ("RGB", "L", "RGBA", "LA", "P", "1", "CMYK")
SIZES = ((80, 50), (50, 80), (7, 200), (32, 32), (1, 1))


def stored(settings: dict):
    """The transform as a file keeps it: settings as JSON."""
    return build_preprocess(json.loads(json.dumps(settings)))


def assert_same(ours, hosts) -> None:
    pictures = [picture(mode) for mode in MODES] + [picture(size=size) for size in SIZES]
    for image in pictures:
        pixels = ours(image)
        assert pixels.dtype == torch.float32
        assert pixels.shape == (3, 32, 32)
        assert torch.equal(pixels, hosts(image))


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_open_clip(resize_mode, interpolation):
    from open_clip.transform import image_transform

    settings = {**OPEN_CLIP, "resize_mode": resize_mode, "interpolation": interpolation, "fill_color": 0}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items() if k != "size"}
    assert_same(stored({"kind": "open_clip", **settings}), image_transform(32, is_train=False, **options))


def test_timm():
    from timm.data import create_transform

    hosts = create_transform(**{k: tuple(v) if isinstance(v, list) else v for k, v in TIMM.items()})
    assert_same(stored({"kind": "timm", **TIMM}), lambda image: hosts(image.convert("RGB")))


def test_timm_as_the_model_describes_itself():
    from tiny_models import build

    from clipq.models import Model

    model = Model(build("timm vision_transformer"))
    assert model.preprocessing["kind"] == "timm"
    assert stored(model.preprocessing)(picture()).shape == model.host.pixel_shape(model.module)


@pytest.mark.parametrize("name", ["CLIPImageProcessor", "SiglipImageProcessor", "ViTImageProcessor"])
def test_transformers(name):
    import transformers

    size = {"shortest_edge": 32} if name.startswith("CLIP") else {"height": 32, "width": 32}
    options = {"crop_size": {"height": 32, "width": 32}} if name.startswith("CLIP") else {}
    processor = getattr(transformers, name)(size=size, image_mean=[0.5, 0.4, 0.3], **options)
    settings = from_image_processor(processor)
    assert settings["kind"] == "transformers"

    def hosts(image):
        return processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]

    assert_same(stored(settings), hosts)


@pytest.mark.parametrize("kind", [None, "os", "Timm", ["timm"], 3])
def test_unknown_kinds(kind):
    with pytest.raises(UnknownNameError, match="preprocessing"):
        build_preprocess({"kind": kind})


BAD = {
    "an unknown option of open_clip": {"kind": "open_clip", "colour": "RGB"},
    "an unknown mode of open_clip": {"kind": "open_clip", "mode": "L"},
    "a size that is a word": {"kind": "open_clip", "size": "large"},
    "an unknown option of timm": {"kind": "timm", **TIMM, "exec": 1},
    "no processor": {"kind": "transformers"},
    "a processor that does not exist": {"kind": "transformers", "image_processor_type": "os"},
    "a processor that is a model": {"kind": "transformers", "image_processor_type": "CLIPModel"},
    "a processor that is a function": {"kind": "transformers", "image_processor_type": "pipeline"},
}


@pytest.mark.parametrize("settings", BAD.values(), ids=BAD)
def test_settings_that_do_not_fit(settings):
    before = dict(settings)
    with pytest.raises(CheckpointError) as caught:
        build_preprocess(settings)
    assert isinstance(caught.value, ClipqError)
    assert settings == before


PROCESSOR = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "image_mean": [0.5] * 3}
RIGHT = {"open_clip": OPEN_CLIP, "timm": TIMM, "transformers": PROCESSOR}
WRONG = {
    "open_clip": {
        "mean": ([0.5, 0.5], "half", [0.5, "x", 0.5], [float("nan")] * 3, 10**400),
        "std": (0, [0.2, 0.2, 0.0], [-1.0] * 3),
        "size": ("32", 0, -1, 10**9, [32, 32, 32], 32.0, True, None),
        "interpolation": ("bicubik", ["bicubic"], 3),
        "resize_mode": ("crop",),
        "fill_color": (256, "white"),
        "colour": ("RGB",),
    },
    "timm": {
        "input_size": ("3x32x32", [3, 32, "32"], [3, 1 << 20, 1 << 20]),
        "mean": ([0.5] * 2,),
        "crop_pct": (0, "0.9", [0.9], 1e300),
        "crop_mode": ("middle",),
        "exec": (1,),
    },
    "transformers": {
        "size": ("32", {"shortest_edge": "32"}, {"width": 10**9, "height": 1}, {}, {"edge": 32}),
        "crop_size": ([1, 2, 3],),
        "image_mean": ([0.5] * 2, "0.5"),
        "image_std": ([0.0] * 3,),
        "do_resize": ("yes", 1),
        "resample": (9, "bicubic"),
        "image_processor_type": ("os", "CLIPModel", None, ["CLIPImageProcessor"]),
    },
}


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [(kind, key, value) for kind, keys in WRONG.items() for key, values in keys.items() for value in values],
)
def test_settings_of_a_wrong_type_are_refused_before_they_are_used(kind, key, value):
    settings = {"kind": kind, **RIGHT[kind]}
    check_preprocessing(settings)
    with pytest.raises(CheckpointError, match="image processor" if key == "image_processor_type" else key):
        check_preprocessing({**settings, key: value})


def test_a_model_may_come_without_preprocessing():
    check_preprocessing({})
