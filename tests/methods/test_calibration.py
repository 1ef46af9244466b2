"""Calibration data in every form is the same data, and what cannot be read is named."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tiny_models import build

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.errors import DataError, QuantizationError, UnknownNameError
from clipq.methods.calibration import MOST_PICTURES, MOST_TEXTS, inputs_for

SCHEMES = {"image": PRECISIONS["int8-best"]}
TEXTS = {"text": PRECISIONS["int8-best"]}


@pytest.fixture(scope="module")
def model() -> clipq.Model:
    return clipq.load("clipq-tiny", "fp32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (40, 50, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path / f"{number}.png")
    return path


def whole(found, tower: str = "image") -> torch.Tensor:
    assert set(found) == {tower}
    return torch.cat(list(found[tower]))


def test_a_folder_a_list_a_tensor_and_batches_are_the_same_pictures(model, folder):
    paths = sorted(folder.iterdir())
    expected = torch.stack([model.preprocess(Image.open(path).convert("RGB")) for path in paths])
    forms = [folder, str(folder), paths, [path.read_bytes() for path in paths], [Image.open(p) for p in paths]]
    forms += [expected, list(expected), iter([expected[:2], expected[2:]]), iter([(expected, torch.zeros(5))])]
    for form in forms:
        assert torch.equal(whole(inputs_for(model, SCHEMES, form)), expected)
    assert torch.equal(whole(inputs_for(model, SCHEMES, {"image": folder})), expected)
    assert torch.equal(whole(inputs_for(model.module, SCHEMES, expected)), expected)


def test_a_list_a_file_and_ids_are_the_same_texts(model, tmp_path):
    texts = ["a dog", "a red bus", "two cats on a sofa"]
    (tmp_path / "texts.txt").write_text("\n".join([*texts, "", ""]), "utf-8")
    expected = model.tokenizer(texts)
    for form in (texts, tuple(texts), iter(texts), tmp_path / "texts.txt", expected, expected.int()):
        assert torch.equal(whole(inputs_for(model, TEXTS, form), "text"), expected)


def test_clipqs_own_photos_and_words_are_there_where_nothing_is_given(model):
    pixels = whole(inputs_for(model, SCHEMES, None))
    assert pixels.shape == (126, 3, 224, 224)
    assert whole(inputs_for(model, TEXTS, None), "text").shape[0] == MOST_TEXTS


def test_large_data_is_thinned_evenly(model):
    pixels = torch.arange(300.0).view(-1, 1, 1, 1).expand(-1, 3, 224, 224)
    found = whole(inputs_for(model, SCHEMES, pixels))[:, 0, 0, 0]
    assert len(found) == MOST_PICTURES
    assert found.diff().min() >= 2
    assert found[-1] > 295


def test_both_towers_may_be_given(model, folder):
    found = inputs_for(model, SCHEMES | TEXTS, {"image": folder, "text": ["a dog"]})
    assert {tower: len(torch.cat(list(batches))) for tower, batches in found.items()} == {"image": 5, "text": 1}


def test_nothing_is_read_where_nothing_looks_at_inputs(model):
    assert inputs_for(model, {"image": PRECISIONS["int8"], "text": PRECISIONS["fp32"]}, None) == {}


@pytest.mark.parametrize(
    ("calibration", "error", "said"),
    [
        ({"images": []}, UnknownNameError, "image"),
        ({"text": ["a dog"]}, QuantizationError, "image only"),
        ({}, QuantizationError, "nothing"),
        ([], DataError, "no picture"),
        (torch.zeros(0, 3, 224, 224), DataError, "no image"),
        (torch.zeros(2, 3, 10), DataError, "shape"),
        (["missing.png"], DataError, "missing.png"),
        ([3], DataError, "image 0"),
        (iter([]), DataError, "no batches"),
        (iter(["a.png"]), DataError, "str"),
    ],
)
def test_what_is_no_picture_is_refused(model, calibration, error, said):
    with pytest.raises(error, match=said):
        inputs_for(model, SCHEMES, calibration)


def test_a_picture_that_cannot_be_read_is_named(model, folder, tmp_path):
    (tmp_path / "good.png").write_bytes((folder / "0.png").read_bytes())
    (tmp_path / "cut-off.png").write_bytes((folder / "0.png").read_bytes()[:60])
    with pytest.raises(DataError, match="cut-off.png"):
        inputs_for(model, SCHEMES, tmp_path)


@pytest.mark.parametrize("texts", [[], "missing.txt", [3], torch.zeros(2, 400, dtype=torch.long)])
def test_what_is_no_text_is_refused(model, texts):
    with pytest.raises(DataError):
        inputs_for(model, TEXTS, texts)


def test_a_module_that_knows_neither_tokenizer_nor_preprocessing_says_so(folder):
    module = build("transformers CLIP")
    with pytest.raises(QuantizationError, match="preprocessed"):
        inputs_for(module, SCHEMES, folder)
    with pytest.raises(QuantizationError, match="tokenizer"):
        inputs_for(module, TEXTS, ["a dog"])


def test_one_calibration_for_two_towers_is_refused(model, folder):
    with pytest.raises(QuantizationError, match="image.*text"):
        inputs_for(model, SCHEMES | TEXTS, folder)
