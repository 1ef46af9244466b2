"""Pictures from files: threads read ahead of the tower, and nothing about the numbers depends on them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from checkpoint_helpers import TWO_TOWERS, model
from PIL import Image

from clipq import models
from clipq.embedding import Inputs, embed, rows
from clipq.errors import DataError
from clipq.inputs.images import decode_upright

PREPROCESSING = {"kind": "open_clip", "size": 32}


@pytest.fixture(scope="module")
def own():
    return model(TWO_TOWERS, preprocessing=PREPROCESSING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """70 pictures of several sizes, formats and orientations, one of them far larger than the model."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(70):
        size = (400, 360) if i == 33 else (40 + i % 7, 36 + i % 5)
        coarse = Image.fromarray(random.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize(size, 3)
        exif = Image.Exif()
        exif[0x0112] = 1 + i % 8
        coarse.save(folder / f"{i:02d}.{('jpg', 'png')[i % 3 == 1]}", exif=exif)
    return folder


def _old_way(own, paths) -> torch.Tensor:
    """One after the other, in one thread."""
    pixels = torch.stack([own.preprocess(decode_upright(path)) for path in paths])
    return torch.cat([own.encode_image(part, normalize=True) for part in pixels.split(35)])


@pytest.mark.parametrize("threads", [0, 1, 2, 4])
def test_the_same_bits_with_any_number_of_threads(own, folder, threads, monkeypatch):
    monkeypatch.setattr(models, "readers", lambda: threads)
    monkeypatch.setattr(rows, "readers", lambda: threads)
    paths = sorted(folder.iterdir())
    found = own.encode_image(paths, normalize=True)
    assert found.equal(_old_way(own, paths))
    whole = embed(own, folder, batch_size=35, progress=False)
    assert whole.matrix.equal(found) and whole.names == tuple(path.name for path in paths)
    assert whole.about["decode"] == "exact"


def test_scaled_changes_only_what_is_far_larger(own, folder):
    paths = sorted(folder.iterdir())
    exact, scaled = (own.encode_image(paths, True, decode) for decode in ("exact", "scaled"))
    differ = (exact != scaled).any(dim=1).nonzero().flatten().tolist()
    assert differ == [33] and torch.cosine_similarity(exact[33], scaled[33], dim=0) > 0.99
    found = embed(own, Inputs.of(folder, decode="scaled"), batch_size=35, progress=False)
    assert found.matrix.equal(scaled) and found.about["decode"] == "scaled"


def test_every_way_of_giving_a_picture(own, folder):
    """Bytes, PIL images and arrays are read ahead too; one picture object twice is read by one thread."""
    paths = sorted(folder.iterdir())[:6]
    expected = own.encode_image(paths)
    lazy = [Image.open(path) for path in paths]
    assert own.encode_image([path.read_bytes() for path in paths]).equal(expected)
    assert own.encode_image(lazy).equal(expected)
    again = Image.open(paths[0])
    torch.testing.assert_close(own.encode_image([again, again]), expected[[0, 0]])
    arrays = [np.asarray(decode_upright(path)) for path in paths]
    assert own.encode_image(arrays).equal(expected)


@pytest.mark.parametrize("place", [0, 40, 65])
def test_a_broken_picture_is_the_error_wherever_it_stands(own, folder, tmp_path, place):
    paths = sorted(folder.iterdir())[:66]
    broken, later = tmp_path / "broken.jpg", tmp_path / "later.jpg"
    broken.write_bytes(paths[0].read_bytes()[:200])
    later.write_bytes(b"nothing")
    before = threading.active_count()
    paths[place] = broken
    with pytest.raises(DataError, match=r"broken\.jpg"):
        own.encode_image([*paths, later])
    assert threading.active_count() == before


def test_a_resumed_run_takes_nothing_of_another_way_of_decoding(own, folder, tmp_path):
    made = [
        embed(own, Inputs.of(folder, decode=decode), resume=tmp_path, progress=False) for decode in ("exact", "scaled")
    ]
    assert made[0].kept != made[1].kept
    assert not made[0].matrix.equal(made[1].matrix)
