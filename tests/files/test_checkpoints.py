"""Files: bit-equal after reload, strict about what is in them, written completely or not at all."""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import (
    IMAGE_ONLY,
    OPEN_CLIP,
    TWO_TOWERS,
    assert_same,
    model,
    tokenizer_spec,
)
from tiny_models import BUILDERS

from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import CheckpointError, ClipqWarning
from clipq.files import checkpoints, header
from clipq.files.checkpoints import read, write

PARTLY = ("open_clip ConvNeXt", "open_clip ResNet")  # what is not a transformer block stays float, with a warning
PER_GROUP = Scheme("per-group", QuantSpec(False, "group", 16), QuantSpec(True, "token"), None, "bf16")
PER_TENSOR = Scheme("per-tensor", QuantSpec(True, "tensor"), QuantSpec(False, "tensor"))


# -- what was written comes back -----------------------------------------------------------------------------------


def round_trip(saved, path: Path) -> None:
    write(saved, path)
    assert_same(saved, read(path))


@pytest.mark.parametrize("name", BUILDERS)
def test_int8_is_bit_equal_after_reload(name, tmp_path):
    with pytest.warns(ClipqWarning) if name in PARTLY else nullcontext():
        saved = model(name)
    round_trip(saved, tmp_path / "m.safetensors")


PRECISIONS = {
    "int8-weight-only": "int8-weight-only",
    "int8-symmetric": "int8-symmetric",
    "fp32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
    "a tower each": {"image": "int8", "text": "fp16"},
    "one tower": {"text": "int8"},
    "asymmetric per group": PER_GROUP,
    "per tensor": PER_TENSOR,
}


@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
def test_every_precision_is_bit_equal_after_reload(precision, tmp_path):
    round_trip(model(TWO_TOWERS, precision), tmp_path / "m.safetensors")


@pytest.mark.parametrize("precision", [{"image": "int8", "text": "fp16"}, PER_GROUP], ids=["a tower each", "per group"])
def test_fused_attention_is_bit_equal_after_reload(precision, tmp_path):
    round_trip(model(OPEN_CLIP, precision), tmp_path / "m.safetensors")


@pytest.mark.parametrize("fallback", ["fp32", "fp16", "bf16"])
def test_the_fallback_precision_is_kept(fallback, tmp_path):
    saved = model(TWO_TOWERS, fallback=fallback)
    round_trip(saved, tmp_path / "m.safetensors")
    dtypes = {tensor["dtype"] for tensor in header.read_header(tmp_path / "m.safetensors").tensors.values()}
    assert {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}[fallback] in dtypes


def test_a_file_saved_again_is_the_same_file(two_tower_file, tmp_path):
    write(read(two_tower_file), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == two_tower_file.read_bytes()


def test_everything_else_comes_back(tmp_path):
    path = tmp_path / "m.safetensors"
    preprocessing = {"kind": "open_clip", "size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    saved = model(OPEN_CLIP, preprocessing=preprocessing, tokenizer=tokenizer_spec(), source={"tag": "none", "n": 1})
    results = {"accuracy": 0.625, "images": 500, "task": "drawings", "cosine": {"image": [0.999, None]}}
    write(saved, path, results)
    assert_same(saved, read(path))
    assert header.read_header(path).config["results"] == results
    assert torch.equal(read(path).tokenizer("a photo of a cat"), saved.tokenizer("a photo of a cat"))


def test_a_model_without_preprocessing_stays_without(tmp_path):
    saved = model(OPEN_CLIP, preprocessing={})
    write(saved, tmp_path / "m.safetensors")
    assert read(tmp_path / "m.safetensors").preprocessing == saved.preprocessing == {}


def test_settings_that_could_not_be_read_again_are_not_written(tmp_path):
    wrong = model(OPEN_CLIP, preprocessing={"kind": "open_clip", "size": "32"})
    with pytest.raises(CheckpointError, match="size"):
        write(wrong, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_names_are_the_hosts_and_nothing_of_the_device_is_stored(tmp_path):
    path = tmp_path / "m.safetensors"
    write(model(OPEN_CLIP), path)
    block = "transformer.resblocks.0"
    tensors = header.read_header(path).tensors
    for name, shape in ((f"{block}.attn.in_proj_weight", [96, 32]), (f"{block}.mlp.c_fc.weight", [128, 32])):
        assert (tensors[name]["dtype"], tensors[name]["shape"]) == ("I8", shape)
        assert (tensors[f"{name}_scale"]["dtype"], tensors[f"{name}_scale"]["shape"]) == ("F32", [shape[0], 1])
        assert f"{name}_zero_point" not in tensors
    from tiny_models import build

    added = set(tensors) - set(build(OPEN_CLIP).state_dict())
    assert {name.rpartition("weight")[2] for name in added} == {"_scale"}
    text = path.read_bytes()[8 : header.read_header(path).data_start].decode()
    assert not [word for word in ("cpu", "cuda", "native", "int_mm", "qweight", str(tmp_path)) if word in text]


def test_the_matrix_of_int8_weights_is_a_quarter_of_fp32(tmp_path):
    sizes = {}
    for precision in ("int8", "fp32", "fp16"):
        write(model(OPEN_CLIP, precision, fallback="fp32"), tmp_path / precision)
        sizes[precision] = (tmp_path / precision).stat().st_size
    assert sizes["fp32"] / sizes["int8"] > 3.3  # a token embedding 32 wide has a scale for every 32 weights
    assert 1.9 < sizes["fp32"] / sizes["fp16"] < 2.01


# -- a file is complete or not there -------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path) -> Path:
    """A good file; whatever happens in the test, it is still there, unchanged, and alone in its folder."""
    path = tmp_path / "model.safetensors"
    write(model(IMAGE_ONLY), path)
    before = path.read_bytes()
    yield path
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before
    read(path)


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, float("nan"), float("inf"), {(1, 2): 3}], ids=range(6))
def test_results_that_are_not_json(kept, value):
    with pytest.raises(CheckpointError, match="cannot be written.*JSON"):
        write(model(IMAGE_ONLY), kept, {"result": value})


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), MemoryError])
def test_an_interruption_at_the_last_step(kept, monkeypatch, error):
    def interrupted(path):
        assert path.stat().st_size > 50_000
        raise error

    monkeypatch.setattr(checkpoints, "seal", interrupted)
    with pytest.raises(CheckpointError if isinstance(error, OSError) else error):
        write(model(IMAGE_ONLY), kept)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes there")
def test_a_full_disk(kept):
    import resource

    made, (soft, hard) = model(IMAGE_ONLY), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(CheckpointError, match="cannot be written"):
            write(made, kept)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_place_that_is_no_folder(kept):
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(model(IMAGE_ONLY), kept / "inside.safetensors")


def write_often(path: Path, precision: str, start) -> None:
    made = model(IMAGE_ONLY, precision)
    start.wait(120)
    for _ in range(20):
        write(made, path)


def test_two_processes_write_one_file(tmp_path):
    path, context = tmp_path / "model.safetensors", multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    other = context.Process(target=write_often, args=(path, "fp16", start))
    other.start()
    write_often(path, "int8", start)
    other.join()
    assert other.exitcode == 0
    assert list(tmp_path.iterdir()) == [path]
    assert read(path).precision_name in ("int8", "fp16")


def test_a_new_file_has_the_usual_rights(tmp_path):
    (tmp_path / "usual").touch()
    write(model(IMAGE_ONLY), tmp_path / "deep" / "er" / "m.safetensors")
    assert (tmp_path / "deep" / "er" / "m.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode
