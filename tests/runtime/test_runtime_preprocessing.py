"""Preprocessing without torch: the pixels of the hosts' own pipelines, bit by bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from clipq.errors import CheckpointError, DataError, UnknownNameError
from clipq.inputs.preprocessing import build_preprocess
from clipq.native import library
from clipq.native.resizing import Cropped
from clipq.runtime import pictures
from clipq.runtime.preprocessing import build_pixels

MODES = ("RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "YCbCr")
SIZES = ((80, 50), (51, 79), (7, 200), (32, 32), (1, 1), (1, 90), (300, 2), (33, 31), (400, 301), (17, 17), (31, 40))


def picture(mode: str = "RGB", size: tuple[int, int] = (83, 57), seed: int = 0) -> Image.Image:
    """Noise and hard edges, which show every difference; transparent and palette modes keep their peculiarities."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels[draw.random(pixels.shape[:2]) < 0.3] = 255
    pixels[draw.random(pixels.shape[:2]) < 0.3] = 0
    image = Image.fromarray(pixels)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(size))
    return image.convert(mode)


def half_clear() -> Image.Image:
    """An RGB picture one of whose colors stands for nothing, as PNGs say it."""
    image = picture()
    image.info["transparency"] = (255, 255, 255)
    return image


PICTURES = [
    *(picture(mode) for mode in MODES),
    *(picture(size=size, seed=1 + number) for number, size in enumerate(SIZES)),
    half_clear(),
]


def assert_same(settings: dict, pictures: list[Image.Image] = PICTURES) -> None:
    """Of settings as a file keeps them."""
    settings = json.loads(json.dumps(settings))
    hosts, ours = build_preprocess(settings), build_pixels(settings)
    for image in pictures:
        before = image.tobytes()
        try:
            expected = hosts(image).numpy()
        except (ValueError, RuntimeError):  # a strip of which no pixel is left
            with pytest.raises(DataError, match="long and narrow"):
                ours(image)
            continue
        pixels = ours(image)
        assert pixels.dtype == np.float32 and pixels.flags.c_contiguous
        assert np.array_equal(pixels, expected), (settings, image)
        assert image.tobytes() == before


MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
OPEN_CLIP = {
    **{
        f"{mode} {name} {size}": {"resize_mode": mode, "interpolation": name, "size": size}
        for mode in ("shortest", "longest", "squash")
        for name in ("bicubic", "bilinear")
        for size in (32, [24, 40])
    },
    "as they come": {"resize_mode": "squash"},
    "random is bicubic": {"interpolation": "random", "size": 21, "resize_mode": "squash"},
    "one number for all": {"size": 32, "mean": 0.5, "std": 0.25},
    "a mean of nothing": {"size": 32, "mean": 0, "std": 0.5},
    "a gray border": {"size": [40, 24], "resize_mode": "longest", "fill_color": 127},
    "odd": {"size": [33, 47], "mean": [0.1, 0.2, 0.3], "std": [1 / 3, 0.7, 3.0]},
}


@pytest.mark.parametrize("settings", OPEN_CLIP.values(), ids=OPEN_CLIP)
def test_open_clip(settings):
    assert_same({"kind": "open_clip", "mean": MEAN, "std": STD, **settings})


def test_open_clips_colored_border():
    settings = {"kind": "open_clip", "size": 32, "resize_mode": "longest", "fill_color": [1, 2, 250]}
    hosts, ours = build_preprocess(settings), build_pixels(settings)
    for image in (picture(), picture(size=(31, 90))):
        assert np.array_equal(ours(image), hosts(image).numpy())
    with pytest.raises(DataError, match="mode L"):  # where open_clip fails as well
        ours(picture("L"))


TIMM = {
    **{
        f"{mode} {share} {size}": {"crop_mode": mode, "crop_pct": share, "input_size": size}
        for mode in ("center", "squash", "border", None)
        for share, size in ((0.9, [3, 32, 32]), (1.0, [3, 24, 40]), (0.875, 33), (None, [32, 31]), (1.3, [3, 32, 32]))
    },
    **{f"{name}": {"interpolation": name} for name in ("nearest", "lanczos", "hamming", "box")},
    "as they come": {},
    "one number for all": {"mean": 0.5, "std": 0.25},
}


@pytest.mark.parametrize("settings", TIMM.values(), ids=TIMM)
def test_timm(settings):
    assert_same({"kind": "timm", "input_size": [3, 32, 32], "interpolation": "bicubic", **settings})


def square(side: int) -> dict:
    return {"height": side, "width": side}


PROCESSORS = {
    "a smaller square": {"size": square(32), "crop_size": square(28)},
    "the shortest edge": {"size": {"shortest_edge": 32}, "crop_size": square(32)},
    "one number": {"size": 32, "crop_size": 30},
    "two numbers": {"size": [24, 41], "crop_size": [20, 40]},
    "a crop larger than the picture": {"size": square(24), "crop_size": {"height": 37, "width": 30}},
    "a crop larger one way": {"size": {"height": 24, "width": 41}, "crop_size": {"height": 37, "width": 30}},
    "both edges": {"size": {"shortest_edge": 20, "longest_edge": 50}, "crop_size": square(32)},
    "at most": {"size": {"max_height": 130, "max_width": 110}, "crop_size": square(32), "do_center_crop": True},
    "cropped only": {"do_resize": False, "crop_size": square(32), "do_center_crop": True},
    "not cropped": {"do_center_crop": False, "size": square(31), "crop_size": square(3)},
    "not scaled": {"do_rescale": False, "size": square(32)},
    "scaled otherwise": {"rescale_factor": 1 / 127.5, "size": square(32)},
    "not normalized": {"do_normalize": False, "size": square(32)},
    "one mean for all": {"image_mean": 0.4, "image_std": 0.3, "size": square(32)},
    "bilinear": {"resample": 2, "size": square(40), "crop_size": square(32)},
    "bicubic": {"resample": 3, "size": square(40), "crop_size": square(32)},
    "transparency stays": {"do_convert_rgb": False, "size": square(32)},
    "transparency goes": {"do_convert_rgb": True, "size": square(32)},
}
CLASSES = ("CLIPImageProcessor", "SiglipImageProcessor", "ViTImageProcessor", "DeiTImageProcessor", "BitImageProcessor")


@pytest.mark.parametrize("settings", PROCESSORS.values(), ids=PROCESSORS)
@pytest.mark.parametrize("backend", ["", "Pil"])
@pytest.mark.parametrize("name", ["CLIPImageProcessor", "ViTImageProcessor"])
def test_transformers(name, backend, settings):
    assert_same({"kind": "transformers", "image_processor_type": name + backend, **settings})


@pytest.mark.parametrize("settings", [{}, {"size": 32}, {"do_convert_rgb": False, "size": [30, 40]}])
@pytest.mark.parametrize("backend", ["", "Pil"])
@pytest.mark.parametrize("name", CLASSES)
def test_what_each_class_does_by_itself(name, backend, settings):
    some = [picture(), picture("P"), picture("RGBA"), half_clear(), picture(size=(300, 401))]
    assert_same({"kind": "transformers", "image_processor_type": name + backend, **settings}, some)


@pytest.mark.parametrize("number", [0, 1, 4, 5])
def test_pillows_other_filters(number):
    settings = {"image_processor_type": "CLIPImageProcessorPil", "resample": number, "size": square(32)}
    assert_same({"kind": "transformers", **settings})


def test_an_older_name_for_torchs():
    settings = {"kind": "transformers", "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}}
    fast = build_pixels({**settings, "image_processor_type": "CLIPImageProcessorFast"})
    pil = build_pixels({**settings, "image_processor_type": "CLIPImageProcessorPil"})
    assert np.array_equal(fast(picture()), build_pixels(settings)(picture()))
    assert not np.array_equal(fast(picture()), pil(picture()))


@pytest.mark.skipif(not library.available(), reason="the native library is not built")
@pytest.mark.parametrize("kind", [{"kind": "open_clip", "size": 40}, {"kind": "timm", "input_size": [3, 40, 40]}])
def test_usual_pictures_are_resized_by_the_native_library(kind, monkeypatch):
    ours, seen = build_pixels(kind), []
    monkeypatch.setattr(pictures, "resize", lambda *given: seen.append(given) or pytest.fail("Pillow resizes"))
    assert ours(picture(size=(90, 60))).shape == (3, 40, 40)
    with pytest.raises(pytest.fail.Exception):
        ours(picture("L", size=(90, 60)))
    assert len(seen) == 1


def test_a_pillow_that_computes_otherwise_is_left_alone(monkeypatch):
    monkeypatch.setattr(Cropped, "agrees_with", lambda native, host: False)
    assert_same({"kind": "open_clip", "size": 40}, PICTURES[:3])


PROCESSOR = {"kind": "transformers", "image_processor_type": "CLIPImageProcessor"}
REFUSED = {
    "one side in a list": ({"kind": "open_clip", "size": [32], "resize_mode": "squash"}, r"size=\[32\]; allowed: one"),
    "an unknown setting of open_clip": ({"kind": "open_clip", "colour": "RGB"}, "colour='RGB'; allowed: fill_color"),
    "a drawn filter": (
        {"kind": "timm", "interpolation": "random"},
        "interpolation='random'; allowed: nearest, lanczos",
    ),
    "an unknown setting of timm": ({"kind": "timm", "tf_preprocessing": True}, "tf_preprocessing=True"),
    "a border of no color": ({"kind": "timm", "crop_mode": "border", "mean": 0.5}, "mean=0.5; allowed: three"),
    "nothing left": ({"kind": "timm", "input_size": [3, 1, 1], "crop_pct": 2.0}, "crop_pct=2.0"),
    "patches of their own": ({**PROCESSOR, "image_processor_type": "Siglip2ImageProcessor"}, "'Siglip2ImageProcessor'"),
    "no class": ({"kind": "transformers"}, "image_processor_type=None; allowed: BitImageProcessor, CLIP"),
    "an unknown class": ({**PROCESSOR, "image_processor_type": "os"}, "image_processor_type='os'"),
    "the nearest pixel": ({**PROCESSOR, "resample": 0}, r"resample=0; allowed: 2 \(bilinear\), 3 \(bicubic\)"),
    "sharper": ({**PROCESSOR, "resample": 1}, "resample=1"),
    "the longest edge alone": ({**PROCESSOR, "size": {"longest_edge": 32}}, "size={'longest_edge': 32}"),
    "an edge and a side": (
        {**PROCESSOR, "size": {"shortest_edge": 3, "width": 3}},
        "height and width or shortest_edge",
    ),
    "a crop to an edge": ({**PROCESSOR, "crop_size": {"shortest_edge": 32}}, "crop_size={'shortest_edge': 32}"),
    "padding": ({**PROCESSOR, "do_pad": True, "pad_size": {"height": 1, "width": 1}}, "do_pad=True"),
    "a square after all": ({**PROCESSOR, "use_square_size": True}, "use_square_size=True"),
    "whole numbers": ({**PROCESSOR, "do_rescale": False, "do_normalize": False}, "do_rescale=False"),
    "scaled to nothing": ({**PROCESSOR, "rescale_factor": 0}, "rescale_factor=0"),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(settings, words):
    before = json.dumps(settings)
    with pytest.raises(CheckpointError, match=words) as caught:
        build_pixels(settings)
    assert "clipq.load of the full package" in str(caught.value)
    assert json.dumps(settings) == before


def test_settings_are_checked_first():
    with pytest.raises(UnknownNameError, match="preprocessing"):
        build_pixels({"kind": "os"})
    with pytest.raises(CheckpointError, match="size is 'large'"):
        build_pixels({"kind": "open_clip", "size": "large"})


@pytest.mark.parametrize("settings", [{"kind": "open_clip", "resize_mode": "squash"}, {"kind": "timm"}, PROCESSOR])
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_picture_without_pixels(settings, size):
    with pytest.raises(DataError, match=f"{size[0]} x {size[1]} pixels"):
        build_pixels(settings)(Image.new("RGB", size))


@pytest.mark.parametrize("settings", [{"kind": "open_clip"}, {"kind": "timm"}, PROCESSOR])
def test_a_strip_does_not_take_all_memory(settings):
    with pytest.raises(DataError, match="long and narrow.*allowed are"):
        build_pixels(settings)(Image.new("RGB", (60_000, 1)))


def test_torchs_resize_of_photos_and_strips():
    """Of the sizes that pictures have, and of any; the part that is wanted is the part of the whole."""
    import torch
    from torch.nn.functional import interpolate

    from clipq.runtime.resampling import resize

    draw = np.random.default_rng(0)
    sizes = [(375, 500, 224, 298), (1200, 1601, 336, 448), (90, 60, 384, 256), (3, 1000, 2, 700), (900, 1, 33, 1)]
    sizes += [tuple(draw.integers(1, 150, 4).tolist()) for _ in range(120)]
    for number, (height, width, *size) in enumerate(sizes):
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels[draw.random((height, width)) < 0.4] = 255 * (number % 2)
        mode = ("bilinear", "bicubic")[number % 2]
        planes = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
        whole = interpolate(planes, size=size, mode=mode, antialias=True)[0].numpy()
        assert np.array_equal(resize(pixels, tuple(size), mode), whole), (height, width, size, mode)
        top, left = size[0] // 3, size[1] // 4
        window = (top, left, size[0] - top, (size[1] - left + 1) // 2)
        part = whole[:, top:, left : left + window[3]]
        assert np.array_equal(resize(pixels, tuple(size), mode, window), part), (height, width, size, mode)
