"""torchvision's preprocessing in one native call: the host's own bits, on every instruction set of this machine."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from clipq.errors import ClipqError
from clipq.inputs.preprocessing import build_preprocess
from clipq.kernels.resizing import NativePreprocess, natively
from clipq.native import library, resizing
from clipq.native.resizing import taps

pytestmark = pytest.mark.skipif(not library.available(), reason="the native library is not built")

SETTINGS = {
    "open_clip": {"kind": "open_clip", "size": 224},
    "open_clip, bilinear": {"kind": "open_clip", "size": 64, "interpolation": "bilinear"},
    "timm": {"kind": "timm", "input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic"},
    "timm, bilinear": {"kind": "timm", "input_size": [3, 96, 96], "crop_pct": 0.95, "interpolation": "bilinear"},
}
OTHERS = {
    "squash": {"kind": "open_clip", "size": 96, "resize_mode": "squash"},  # Pillow chooses which pass is the first
    "longest side": {"kind": "open_clip", "size": 64, "resize_mode": "longest"},
    "not square": {"kind": "open_clip", "size": [32, 64]},
    "lanczos": {"kind": "timm", "input_size": [3, 64, 64], "interpolation": "lanczos"},
    "border": {"kind": "timm", "input_size": [3, 64, 64], "crop_mode": "border"},
}
SHAPES = [
    *((375, 500), (500, 375), (224, 224), (1, 1), (1, 700), (2, 3), (223, 225), (225, 1000), (30, 17), (1201, 903)),
    *((400, 206), (400, 200), (900, 300)),  # higher and higher
]


def _noise(height: int, width: int) -> Image.Image:
    """Every value next to every other: what cuts off, overshoots."""
    random = np.random.default_rng(height * width)
    return Image.fromarray((random.integers(0, 2, (height, width, 3)) * random.integers(0, 256, 3)).astype(np.uint8))


def _found(name: str) -> NativePreprocess:
    found = natively(build_preprocess(SETTINGS[name]))
    assert isinstance(found, NativePreprocess)
    return found


@pytest.mark.parametrize("path", library.supported_paths())
@pytest.mark.parametrize("name", SETTINGS)
def test_the_hosts_own_bits(name, path):
    found = _found(name)
    for shape in SHAPES:
        picture = _noise(*shape)
        try:
            expected = found.host(picture)
        except ValueError:  # 1 x 700 pixels
            continue
        assert found.on(picture, path).equal(expected), shape


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_go_through_the_host(mode):
    found, picture = _found("open_clip"), _noise(90, 120).convert(mode)
    assert found(picture).equal(found.host(picture))


@pytest.mark.parametrize("name", OTHERS)
def test_what_it_does_not_know_stays_the_hosts(name):
    host = build_preprocess(OTHERS[name])
    assert natively(host) is host


@pytest.mark.parametrize(
    "steps",
    [
        [transforms.Resize(64), transforms.ToTensor()],
        [transforms.Resize(64), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])],
        [transforms.Resize(64, max_size=70), transforms.CenterCrop(64), transforms.ToTensor()],
        [transforms.CenterCrop(64), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)],
        [transforms.Resize(64), transforms.Grayscale(3), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])],
    ],
)
def test_other_transforms_stay_as_they_are(steps):
    host = transforms.Compose(steps)
    assert natively(host) is host


def test_a_pillow_that_computes_otherwise_is_left_alone(monkeypatch):
    monkeypatch.setitem(resizing.FILTERS, "bicubic", (lambda x: resizing._cubic(x) * (1 + 1e-3 * x), 2.0))
    resizing.taps.cache_clear()
    resizing._plan.cache_clear()
    host = build_preprocess(SETTINGS["open_clip"])
    assert natively(host) is host
    resizing.taps.cache_clear()
    resizing._plan.cache_clear()


@pytest.mark.parametrize("filter", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("size", "wanted"), [(500, 299), (375, 224), (4000, 298), (10, 224), (7, 7), (1, 5)])
def test_weights_sum_to_one_and_lie_inside(size, wanted, filter):
    found = taps(size, wanted, filter)
    assert found.weight.shape[0] == wanted and (found.first >= 0).all() and (found.number >= 1).all()
    assert (found.first + found.number <= size).all() and found.weight.shape[1] >= found.number.max()
    assert np.abs(found.weight.sum(axis=1) - (1 << 22)).max() <= found.weight.shape[1]


@pytest.mark.parametrize(
    ("change", "height", "width"),
    [
        ({"first": -1}, 8, 8),
        ({"first": 3}, 8, 8),
        ({"number": 0}, 8, 8),
        ({"number": 100}, 8, 8),
        ({}, 0, 8),
        ({}, 8, -3),
        ({}, 4, 8),
        ({}, 8, 1 << 40),
    ],
)
def test_taps_that_reach_outside_are_refused(change, height, width):
    pixels, table = np.zeros((8, 8, 3), np.uint8), np.zeros((3, 256), np.float32)
    one = taps(8, 2, "bilinear")
    bad = resizing.Taps(one.first.copy(), one.number.copy(), one.weight)
    for name, value in change.items():
        getattr(bad, name)[-1] = value
    good, wrong, out = one.structure(), bad.structure(), torch.full((3, 2, 2), -1.0)
    pointers = (ctypes.addressof(wrong), ctypes.addressof(good), table.ctypes.data, out.data_ptr())
    with pytest.raises(ClipqError, match="out of range"):
        library.check(library.load().clipq_preprocess(0, pixels.ctypes.data, height, width, *pointers))
    assert (out == -1).all()
