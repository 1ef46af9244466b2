"""What may enter a model, and what is said of the rest."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from clipq.errors import ClipqError, DataError
from clipq.inputs.borders import batch_of, check_ids, check_pixels, pictures
from clipq.inputs.given import fill, open_picture, prompts, strings

SHAPE = (3, 32, 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_pixels_of_the_right_shape_enter(dtype):
    check_pixels(torch.zeros(2, *SHAPE, dtype=dtype), SHAPE)
    check_pixels(torch.zeros(0, *SHAPE, dtype=dtype), SHAPE)
    check_pixels(torch.zeros(2, 3, 5, 70, dtype=dtype), SHAPE, any_size=True)
    check_pixels(torch.zeros(2, 1, 5, 70, dtype=dtype), None, any_size=True)


@pytest.mark.parametrize(
    "shape",
    [(2, 1, *SHAPE), (1, 2, *SHAPE), SHAPE, (32, 32), (), (2, 3, 0, 32), (2, 3, 5, 5), (2, 1, 32, 32), (2, 32, 32, 3)],
)
def test_pixels_of_another_shape_do_not(shape):
    with pytest.raises(DataError, match=r"\[batch, 3, 32, 32\].*model.preprocess") as found:
        check_pixels(torch.zeros(shape), SHAPE)
    assert str(list(shape)) in str(found.value)
    assert ("pixels[None]" in str(found.value)) is (shape == SHAPE)


@pytest.mark.parametrize("shape", [(2, 3, 0, 32), (2, 4, 32, 32), (3, 32, 32), (2, 1, 3, 32, 32)])
def test_a_model_of_any_size_takes_images_all_the_same(shape):
    with pytest.raises(DataError, match=r"\[batch, 3, height, width\] \(it was made for 32 x 32\)"):
        check_pixels(torch.zeros(shape), SHAPE, any_size=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_pixels_are_scaled_numbers(dtype):
    with pytest.raises(DataError, match=rf"{dtype}.*scaled and normalized floating-point.*model.preprocess"):
        check_pixels(torch.ones(2, *SHAPE, dtype=dtype), SHAPE)


def test_ids_of_the_vocabulary_enter():
    check_ids(torch.tensor([[0, 99, 5]]), 3, 100)
    check_ids(torch.tensor([[0, 99]], dtype=torch.int32), 3, 100)
    check_ids(torch.zeros(0, 3, dtype=torch.long), 3, 100)
    check_ids(torch.tensor([[0, 10**6]]), None, None)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[1, 2, 100]]), "from 1 to 100 .* 0 to 99"),
        (torch.tensor([[1, 2, -1]]), "from -1 to 2 .* 0 to 99"),
        (torch.tensor([[1, 2, 2**62]]), "0 to 99"),
        (torch.zeros(1, 4, dtype=torch.long), r"\[1, 4\].*at most 3 tokens"),
        (torch.zeros(2, 0, dtype=torch.long), r"\[2, 0\].*at most 3 tokens"),
        (torch.zeros(3, dtype=torch.long), r"ids\[None\]"),
        (torch.zeros(1, 1, 3, dtype=torch.long), r"\[1, 1, 3\]"),
        (torch.zeros(1, 3), r"torch.float32.*int64 or int32"),
        (torch.zeros(1, 3, dtype=torch.bool), r"torch.bool.*ids.long\(\)"),
        (torch.zeros(1, 3, dtype=torch.uint8), "torch.uint8"),
    ],
)
def test_other_ids_do_not(ids, message):
    with pytest.raises(DataError, match=message):
        check_ids(ids, 3, 100)


def test_strings():
    assert strings("a cat") == ["a cat"]
    assert strings(text for text in ("a", "b")) == strings(np.array(["a", "b"])) == ["a", "b"]
    assert strings([]) == []


@pytest.mark.parametrize("texts", [5, None, b"a cat", {"a": 1}, [1, 2], ["a", None], [["a"]], np.array([["a"]]), 2.5])
def test_what_is_no_text(texts):
    with pytest.raises(DataError, match="tensor"):
        strings(texts)


def png(colour: str = "red", size: tuple[int, int] = (6, 4)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def test_one_picture_in_every_form(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    image = Image.new("RGB", (6, 4), "red")
    forms = [image, tmp_path / "a.png", str(tmp_path / "a.png"), png(), bytearray(png()), np.asarray(image)]
    for form in forms:
        (found,) = pictures(form)
        assert open_picture(found).tobytes() == image.tobytes()
    assert len(pictures(forms)) == len(pictures(tuple(forms))) == 6
    assert len(pictures(np.zeros((5, 4, 6, 3), np.uint8))) == 5
    grey = np.full((4, 6, 1), 7, np.uint8)
    assert open_picture(grey).getpixel((0, 0)) == open_picture(grey[..., 0]).getpixel((0, 0)) == (7, 7, 7)
    assert pictures([]) == []


def test_photos_are_turned_as_they_say():
    photo, exif, out = Image.new("RGB", (6, 4)), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    photo.save(out, "JPEG", exif=exif)
    assert open_picture(out.getvalue()).size == open_picture(Image.open(out)).size == (4, 6)


def test_preprocessed_images_in_a_list_are_a_batch():
    assert pictures([torch.zeros(SHAPE)] * 2).shape == (2, *SHAPE)
    with pytest.raises(DataError, match="several shapes"):
        pictures([torch.zeros(SHAPE), torch.zeros(3, 30, 32)])


@pytest.mark.parametrize(
    "image",
    [None, 5, object(), [[]], "no/such.png", np.zeros((4, 4, 3)), np.zeros(3, np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_picture(image):
    with pytest.raises(DataError, match=r"give a PIL image, a path.*uint8 array"):
        pictures(image)
    with pytest.raises(DataError, match="image 1 is"):
        pictures([png(), image])


def test_a_broken_picture_and_a_folder(tmp_path):
    with pytest.raises(ClipqError, match="cannot read"):
        open_picture(b"GIF89a")
    with pytest.raises(DataError, match="a folder"):
        pictures(tmp_path)


def test_prompts():
    assert prompts(("cat", "dog"), ["a {}", "the {c}."]) == (["cat", "dog"], ["a {}", "the {c}."])
    assert fill("a {} or {c}", "cat {}") == "a cat {} or cat {}"
    for labels, templates, message in [
        ("cat", ["a {}"], r"labels='cat' is one string.*\['cat'\]"),
        ([], ["a {}"], "labels is empty"),
        (["cat", 5], ["a {}"], "5"),
        (["cat"], "a {}", "templates='a {}' is one string"),
        (["cat"], [], "templates is empty"),
        (["cat"], ["a {}", "a photo"], "'a photo' has no place for the label"),
    ]:
        with pytest.raises(DataError, match=message):
            prompts(labels, templates)


def test_the_batch_of_a_mapping():
    assert batch_of({"a": torch.zeros(3, 2), "b": torch.zeros(3)}) == 3
    for mixed in ({}, {"a": torch.zeros(3), "b": torch.zeros(2)}, {"a": torch.zeros(3), "b": True}):
        assert batch_of(mixed) is None
