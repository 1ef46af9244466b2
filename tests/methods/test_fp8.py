"""Models in fp8: close to fp32, saved as fp8, read back bit by bit, refused where damaged."""

from __future__ import annotations

import copy
import json
import warnings

import pytest
import torch
from checkpoint_helpers import assert_same, config, embeddings, forge, refused, split
from tiny_models import build

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.errors import ClipqWarning
from clipq.files.checkpoints import read
from clipq.methods.coverage import coverage
from clipq.modules.layers import QEmbedding, QLinear
from clipq.modules.state import slots

MODELS = ("open_clip CLIP", "transformers SigLIP", "open_clip timm trunk", "open_clip custom blocks", "timm scales")
WEIGHT = "vision_model.encoder.layers.0.mlp.fc1.weight"


def fp8(name: str, **options: str) -> clipq.Model:
    with pytest.warns(ClipqWarning, match="fp8 is emulated on this cpu"):
        return clipq.quantize(clipq.Model(build(name), config=config(name)), "fp8", **options)


def quietly(call, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipqWarning)
        return call(*args)


@pytest.mark.parametrize("name", MODELS)
def test_all_of_the_blocks_is_fp8_and_close_to_fp32(name):
    exact, of = clipq.Model(build(name)), fp8(name)
    found = coverage(of)
    assert all(tower.block_share == 1 for tower in found.towers.values())
    linears = [part for part in of.module.modules() if isinstance(part, QLinear)]
    assert linears and all(part.qweight.dtype == torch.float8_e4m3fn for part in linears)
    tables = [part for part in of.module.modules() if isinstance(part, QEmbedding)]
    assert all(part.qweight.dtype == torch.int8 for part in tables)  # rows of a table are looked up, not multiplied
    assert of.kernel_path() == "reference"
    for one, other in zip(embeddings(of), embeddings(exact), strict=True):
        assert torch.cosine_similarity(one, other).min() > 0.97
        assert not torch.equal(one, other)


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP", "timm vision_transformer"])
def test_a_file_gives_the_same_bits_again(name, tmp_path):
    of = fp8(name)
    path = clipq.save(of, tmp_path / "m.safetensors")
    kinds = {entry["dtype"] for key, entry in split(path)[0].items() if key != "__metadata__"}
    assert "F8_E4M3" in kinds
    again = quietly(read, path)
    assert_same(of, again)
    assert clipq.save(again, tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_casts_of_the_surroundings_leave_the_weights_alone():
    of = fp8("open_clip CLIP")
    before = {name: slot.tensor.clone() for name, slot in slots(of.module).items() if slot.is_quantized}
    module = copy.deepcopy(of.module).half().float()
    for name, slot in slots(module).items():
        if name in before:
            assert slot.tensor.dtype == before[name].dtype
            assert torch.equal(slot.tensor.float(), before[name].float())


@pytest.fixture
def saved(tmp_path):
    return clipq.save(fp8("transformers CLIP"), tmp_path / "m.safetensors")


def test_the_forger_leaves_a_good_file(saved, tmp_path):
    assert_same(quietly(read, saved), quietly(read, forge(saved, tmp_path / "same.safetensors", lambda *_: None)))


def retyped(dtype):
    return lambda entries, data: entries[WEIGHT].update(dtype=dtype)


def no_number(entries, data):
    data[entries[WEIGHT]["data_offsets"][0] + 3] = 0xFF


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (retyped("I8"), "has dtype torch.int8, the model needs torch.float8_e4m3fn"),
        (retyped("U8"), "has dtype torch.uint8"),
        (retyped("F8_E5M2"), "has dtype 'F8_E5M2'; allowed"),
        (no_number, "weights that are no numbers"),
    ],
)
def test_a_damaged_or_forged_file_is_refused(change, words, saved, tmp_path):
    refused(forge(saved, tmp_path / "forged.safetensors", change), WEIGHT, words)


def test_a_flipped_bit_is_refused(saved):
    raw = bytearray(saved.read_bytes())
    raw[-1000] ^= 4
    saved.write_bytes(raw)
    refused(saved, "sha256")


def test_int8_files_cannot_hold_fp8_numbers_and_the_other_way_round(tmp_path):
    path = clipq.save(clipq.quantize(build("transformers CLIP"), "int8"), tmp_path / "m.safetensors")
    refused(forge(path, tmp_path / "f.safetensors", retyped("F8_E4M3")), "has dtype torch.float8_e4m3fn")


def test_the_folder_says_float(tmp_path):
    folder = clipq.save(fp8("transformers CLIP"), tmp_path / "folder")
    groups = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]
    assert {(one["weights"]["type"], one["input_activations"]["type"]) for one in groups.values()} == {
        ("float", "float")
    }


def test_int8_says_nothing_of_fp8():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clipq.quantize(build("open_clip CLIP"), PRECISIONS["int8-weight-only"])
    assert not any("fp8" in str(one.message) for one in caught)
