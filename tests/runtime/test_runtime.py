"""`clipq.runtime` gives the embeddings of `clipq.Model`, from the same file, without torch."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from checkpoint_helpers import tokenizer_spec
from tiny_models import BUILDERS, VARIANTS, config
from tower_helpers import pixels, tokens

import clipq
from clipq.errors import CheckpointError, ClipqError, DataError, UnknownNameError
from clipq.inputs.folders import pictures
from clipq.models import Model
from clipq.native import images, library
from clipq.resources import resource
from clipq.runtime import load

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")

TINY = resource("zoo", "clipq-tiny", "clipq-tiny-int8.safetensors")
RUN = [
    name
    for name in BUILDERS
    if name.endswith(("CLIP", "GELU", "SigLIP", "ViT", "DeiT", "DINOv2", "DINOv3", "transformer"))
]
RUN = [name for name in RUN if "timm SigLIP" not in name]
RUN += [name for name in VARIANTS if name.startswith("transformers")]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((np.sum(a * b, -1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))).min())


@pytest.fixture(scope="module")
def both() -> tuple[Model, object]:
    return clipq.load("clipq-tiny"), load("clipq-tiny")


@pytest.fixture(scope="module")
def photos() -> list:
    return [entry.path for entry in pictures(resource("eval", "data", "drawings")).entries[:5]]


@pytest.mark.parametrize("name", RUN)
def test_a_file_gives_the_models_embeddings(name, tiny, tmp_path):
    model = clipq.quantize(Model(tiny(name), config=config(name)))
    clipq.save(model, tmp_path / "m.safetensors")
    runtime = load(tmp_path / "m.safetensors", threads=1)
    assert runtime.towers == model.towers
    if "image" in model.towers:
        x = pixels(model)
        assert cosine(runtime.encode_image(x.numpy()), model.encode_image(x).numpy()) > 0.999999
    if "text" in model.towers:
        ids = tokens(model)
        assert cosine(runtime.encode_text(ids.numpy()), model.encode_text(ids).numpy()) > 0.999999


@pytest.mark.parametrize("precision", ["int8-symmetric", "int8-static"])
def test_other_int8_precisions(precision, tmp_path):
    model, texts = clipq.load("clipq-tiny", "fp32"), ["a dog", "two cats on a bench"]
    few = {"image": torch.randn(8, 3, 224, 224), "text": model.tokenizer(texts)}  # the ranges are others' business
    clipq.quantize(model, precision, calibration=few if "static" in precision else None)
    runtime = load(clipq.save(model, tmp_path / "m.safetensors"))
    x = torch.randn(3, 3, 224, 224)
    assert cosine(runtime.encode_image(x.numpy()), model.encode_image(x).numpy()) > 0.999999
    assert cosine(runtime.encode_text(texts), model.encode_text(texts).numpy()) > 0.999999


def test_pictures_texts_and_classes_are_the_models(both, tmp_path):
    from PIL import Image

    model, runtime = both
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    given = [noise, Image.fromarray(noise[:50]), tmp_path / "a.png", (tmp_path / "a.png").read_bytes()]
    assert cosine(runtime.encode_image(given, True), model.encode_image(given, True).numpy()) > 0.999999
    texts = ["a dog", "", "a dog", "café \u4f60\u597d", "word " * 100]
    found = runtime.encode_text(texts)
    assert cosine(found, model.encode_text(texts).numpy()) > 0.999999
    assert np.array_equal(found[0], found[2])
    labels = ["dog", "cat", "house"]
    shares = runtime.classify(given, labels, ["a {}", "the {c}"])
    assert np.allclose(shares, model.classify(given, labels, ["a {}", "the {c}"]).numpy(), atol=1e-4)
    assert np.allclose(shares.sum(1), 1)


def test_nothing_gives_nothing(both):
    _, runtime = both
    assert runtime.encode_image([]).shape == runtime.encode_text([]).shape == (0, 192)
    assert runtime.encode_image(np.zeros((0, 3, 224, 224), np.float32)).shape == (0, 192)


def test_one_tower_alone_and_any_number_of_threads_give_the_same_bits(both):
    _, runtime = both
    x = np.random.default_rng(0).standard_normal((40, 3, 224, 224)).astype(np.float32)
    alone = load(TINY, towers="image", threads=3)
    assert alone.towers == ("image",)
    whole = runtime.encode_image(x)
    assert np.array_equal(alone.encode_image(x), whole)
    assert np.array_equal(alone.encode_image(x[7:8]), whole[7:8])
    with pytest.raises(DataError, match="has no text tower"):
        alone.encode_text("a dog")


@pytest.mark.parametrize(
    ("give", "error", "words"),
    [
        (lambda m: m.encode_image("gone.jpg"), DataError, "gone.jpg"),
        (lambda m: m.encode_image(np.zeros((3, 3, 8, 8), np.float32)), DataError, r"\[batch, 3, 224, 224\]"),
        (lambda m: m.encode_image(3), DataError, "this image is 3"),
        (lambda m: m.encode_text([3]), DataError, "text 0 is 3"),
        (lambda m: m.encode_text(np.full((1, 32), 99999)), DataError, "vocabulary, 0 to 2999"),
        (lambda m: m.encode_text(np.full((1, 32), -1)), DataError, "vocabulary"),
        (lambda m: m.encode_text(np.zeros((1, 5), int)), DataError, r"\[batch, 32\]"),
        (lambda m: m.classify([], ["a", "b"]), DataError, "no images"),
        (lambda m: m.classify(np.zeros((8, 8, 3), np.uint8), []), DataError, "empty"),
        (lambda m: m.classify(np.zeros((8, 8, 3), np.uint8), ["a"], ["no place"]), DataError, "no place for the label"),
        (lambda m: load("no-such-model"), UnknownNameError, "no-such-model"),
        (lambda m: load("ViT-B-32/openai"), CheckpointError, "whole package"),
        (lambda m: load(TINY, towers="audio"), UnknownNameError, "image, text"),
        (lambda m: load(TINY, towers=()), UnknownNameError, "no tower"),
        (lambda m: load(resource("zoo", "clipq-tiny", "clipq-tiny-fp16.safetensors")), CheckpointError, "before 0.6"),
    ],
)
def test_what_it_does_not_take_is_refused(both, give, error, words):
    with pytest.raises(error, match=words):
        give(both[1])


def test_a_tower_that_needs_torch_is_refused_with_the_reason(tiny, tmp_path):
    name = "open_clip custom blocks"
    model = clipq.quantize(Model(tiny(name), config=config(name)))
    path = clipq.save(model, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="image tower does not run without torch.*towers='text'"):
        load(path)
    assert load(path, towers="text").towers == ("text",)
    floats = clipq.quantize(clipq.load("clipq-tiny", "fp32"), {"image": "int8", "text": "fp32"})
    path = clipq.save(floats, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match="text tower does not run without torch"):
        load(path)


def test_a_file_without_settings_takes_arrays_alone(tiny, tmp_path):
    model = clipq.quantize(Model(tiny("open_clip CLIP"), config=config("open_clip CLIP"), preprocessing={}))
    runtime = load(clipq.save(model, tmp_path / "m.safetensors"))
    with pytest.raises(ClipqError, match="preprocessing settings"):
        runtime.encode_image(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ClipqError, match="tokenizer"):
        runtime.encode_text("a dog")


def test_the_embedded_model_is_not_in_the_small_package(monkeypatch):
    monkeypatch.setattr("clipq.runtime.zoo.has_resource", lambda *parts: False)
    with pytest.raises(CheckpointError, match="pip install clipq"):
        load("clipq-tiny")


def test_an_altered_file_is_refused(tmp_path):
    data = bytearray(TINY.read_bytes())
    data[-100] ^= 1
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="sha256"):
        load(tmp_path / "m.safetensors")


def test_no_torch_is_imported(tmp_path):
    code = f"""
import sys
import tracemalloc
import clipq.runtime
assert not any(name in sys.modules for name in ("numpy", "PIL")), "import costs something"
model = clipq.runtime.load({str(TINY)!r})
model.encode_text(["a dog"]), model.encode_image(__import__("numpy").zeros((30, 40, 3), "uint8"))
heavy = ("torch", "torchvision", "open_clip", "transformers", "timm", "datasets", "accelerate", "safetensors")
print([name for name in (*heavy, "huggingface_hub") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_tokenizer_of_a_hugging_face_model(tiny, tmp_path):
    spec = tokenizer_spec()
    model = clipq.quantize(Model(tiny("open_clip CLIP"), config=config("open_clip CLIP"), tokenizer=spec))
    runtime = load(clipq.save(model, tmp_path / "m.safetensors"), towers="text")
    texts = ["a photo of a dog", "dog"]
    assert cosine(runtime.encode_text(texts), model.encode_text(texts).numpy()) > 0.999999


def test_memory_follows_a_few_pictures_and_not_the_batch(both, monkeypatch):
    _, runtime = both
    x = np.random.default_rng(0).standard_normal((32, 3, 224, 224), np.float32)
    at_once = runtime.encode_image(x)
    monkeypatch.setattr(images, "_IMAGES", 4)
    monkeypatch.setattr(images, "_ROWS", 1)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            assert np.array_equal(runtime.encode_image(x[:count]), at_once[:count])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many, one = peak(4), peak(32), at_once[0].nbytes
    assert few > 4 * 192 * 4 * 50  # what lies between the steps is counted
    assert many < few + 40 * one + 100_000
