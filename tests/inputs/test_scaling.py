"""Scaled decoding: how far a JPEG may be reduced, which way up it is, and that everything else is decoded whole."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from clipq.errors import UnknownNameError
from clipq.inputs.images import decode_upright
from clipq.inputs.preprocessing import build_preprocess
from clipq.inputs.scaling import check_decode, smallest_of

OPEN_CLIP = {"kind": "open_clip", "size": 224}
SETTINGS = {
    "shortest": (OPEN_CLIP, (1600, 1200), (598, 448)),
    "longest": ({**OPEN_CLIP, "resize_mode": "longest"}, (1600, 1200), (448, 336)),
    "squash": ({**OPEN_CLIP, "resize_mode": "squash", "size": [224, 448]}, (1600, 1200), (896, 448)),
    "timm, cropped": ({"kind": "timm", "input_size": [3, 224, 224], "crop_pct": 0.5}, (1600, 1600), (896, 896)),
    "timm, as is": ({"kind": "timm", "input_size": [3, 224, 224]}, (1600, 1600), (512, 512)),
    "timm, border": (
        {"kind": "timm", "input_size": 100, "crop_pct": 1.0, "crop_mode": "border"},
        (400, 200),
        (200, 100),
    ),
    "CLIP": (
        {"kind": "transformers", "image_processor_type": "CLIPImageProcessorFast", "size": {"shortest_edge": 224}},
        (1200, 1600),
        (448, 598),
    ),
    "SigLIP": (
        {"kind": "transformers", "image_processor_type": "SiglipImageProcessor", "size": {"height": 256, "width": 256}},
        (1200, 1600),
        (512, 512),
    ),
}
WHOLE = {
    "exact": (OPEN_CLIP, "exact"),
    "no settings": ({}, "scaled"),
    "no resizing": (
        {"kind": "transformers", "image_processor_type": "CLIPImageProcessor", "size": 224, "do_resize": False},
        "scaled",
    ),
    "patches": ({"kind": "transformers", "image_processor_type": "Siglip2ImageProcessor", "size": 224}, "scaled"),
    "longest edge": (
        {"kind": "transformers", "image_processor_type": "CLIPImageProcessor", "size": {"longest_edge": 224}},
        "scaled",
    ),
}


def _photo(width: int, height: int) -> Image.Image:
    """Soft shapes with edges and a little noise, as lenses and sensors make them."""
    random = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 8, width), np.linspace(0, 6, height))
    waves = np.stack([np.sin(x * k + y) + (np.cos(y * k) > 0.5) for k in (1.0, 2.3, 3.7)], axis=-1)
    values = 128 + 45 * waves + random.normal(0, 3, waves.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _jpeg(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, quality=90, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return _jpeg(_photo(2000, 1500))


@pytest.mark.parametrize("name", SETTINGS)
def test_twice_what_a_model_resizes_to_is_kept(name):
    settings, size, least = SETTINGS[name]
    assert smallest_of(settings, "scaled")(size) == least


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_not_known_to_be_resized_is_decoded_whole(name, photo):
    smallest = smallest_of(*WHOLE[name])
    assert smallest is None
    assert decode_upright(photo, smallest).tobytes() == decode_upright(photo).tobytes()


def test_an_unknown_way_is_refused():
    with pytest.raises(UnknownNameError, match="'scaled'"):
        check_decode("scald")


@pytest.mark.parametrize(
    ("size", "factor"), [((895, 1500), 1), ((896, 896), 2), ((1791, 3000), 2), ((1792, 2400), 4), ((4000, 3600), 8)]
)
def test_only_jpegs_much_larger_than_needed_are_reduced(size, factor):
    """And then to no less than twice the 224 pixels of the model on the shorter side."""
    found = decode_upright(_jpeg(Image.new("RGB", size, "teal")), smallest_of(OPEN_CLIP, "scaled"))
    assert found.size == tuple(-(-side // factor) for side in size)
    assert factor == 1 or min(found.size) >= 448


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_other_formats_are_decoded_whole(kind):
    out = io.BytesIO()
    _photo(1000, 900).save(out, kind)
    smallest = smallest_of({**OPEN_CLIP, "size": 32}, "scaled")
    assert decode_upright(out.getvalue(), smallest).tobytes() == decode_upright(out.getvalue()).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("settings", [OPEN_CLIP, {**OPEN_CLIP, "resize_mode": "squash", "size": [64, 256]}])
def test_scaled_and_turned_is_near_exact_and_turned(photo, orientation, settings):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _jpeg(Image.open(io.BytesIO(photo)), exif=exif)
    smallest, preprocess = smallest_of(settings, "scaled"), build_preprocess(settings)
    exact, scaled = decode_upright(content), decode_upright(content, smallest)
    assert (scaled.width < scaled.height) == (exact.width < exact.height) == (orientation > 4)
    least = smallest(exact.size)
    assert least[0] <= scaled.width < exact.width and least[1] <= scaled.height < exact.height
    difference = (preprocess(exact) - preprocess(scaled)).abs()
    assert difference.mean() < 0.03 and difference.max() < 0.8  # of values about 1 wide: edges differ, nothing else


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_modes_other_than_rgb(mode):
    content = _jpeg(_photo(1200, 1000).convert(mode))
    found = decode_upright(content, smallest_of({**OPEN_CLIP, "size": 100}, "scaled"))
    assert found.mode == "RGB" and found.size == (300, 250)
    exact = decode_upright(content).resize(found.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(exact).astype(int)).mean() < 2


def test_several_pictures_in_one_jpeg():
    """MPO, as phones and 3D cameras write it: the first one, reduced too."""
    first = _photo(1200, 1000)
    content = _jpeg(first, "MPO", save_all=True, append_images=[Image.new("RGB", (1200, 1000), "red")])
    assert Image.open(io.BytesIO(content)).format == "MPO"
    found = decode_upright(content, smallest_of({**OPEN_CLIP, "size": 100}, "scaled"))
    assert found.size == (300, 250)
    exact = decode_upright(content).resize(found.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(exact).astype(int)).mean() < 3
