"""Files of packed weights that nobody should trust, and what a header says of good ones."""

from __future__ import annotations

import json

import pytest
from checkpoint_helpers import TWO_TOWERS, forge, forge_config, model, refused

import clipq
from clipq.arithmetic.specs import QuantSpec
from clipq.cli import main
from clipq.files.checkpoints import read
from clipq.modules.state import shapes, slots

WEIGHT = "vision_model.encoder.layers.1.mlp.fc1.weight"
IMAGE = ("recipe", "towers", "image", "weights")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return clipq.save(model(TWO_TOWERS, "int4"), tmp_path_factory.mktemp("packed") / "int4.safetensors")


def retype(name, dtype, shape):
    return lambda entries, data: entries[name].update(dtype=dtype, shape=shape)


def rename(old, new):
    return lambda entries, data: entries.update({new: entries.pop(old)})


def infinite(name):
    def change(entries, data):
        start = entries[name]["data_offsets"][0]
        data[start : start + 2] = b"\x00\x7c"

    return change


TENSORS = {
    "missing": (rename(f"{WEIGHT}_packed", "x"), f"tensor '{WEIGHT}_packed' is missing"),
    "as if it were int8": (rename(f"{WEIGHT}_packed", WEIGHT), f"tensor '{WEIGHT}_packed' is missing"),
    "another shape": (retype(f"{WEIGHT}_packed", "U8", [64, 64]), f"'{WEIGHT}_packed' has shape [64, 64]"),
    "signed": (retype(f"{WEIGHT}_packed", "I8", [128, 32]), f"'{WEIGHT}_packed' has dtype torch.int8"),
    "flat scales": (retype(f"{WEIGHT}_scale", "F16", [128]), f"'{WEIGHT}_scale' has shape [128]"),
    "brain floats": (retype(f"{WEIGHT}_scale", "BF16", [128, 1, 1]), f"'{WEIGHT}_scale' has dtype torch.bfloat16"),
    "infinite scales": (infinite(f"{WEIGHT}_scale"), f"'{WEIGHT}_scale' has scales or zero points that are not"),
    "infinite zero points": (infinite(f"{WEIGHT}_zero_point"), f"'{WEIGHT}_zero_point' has scales or zero points"),
    "whole zero points": (retype(f"{WEIGHT}_zero_point", "I16", [128, 1, 1]), f"'{WEIGHT}_zero_point' has dtype"),
}


@pytest.mark.parametrize(("change", "message"), TENSORS.values(), ids=TENSORS)
def test_tensors_that_are_not_the_models(packed, tmp_path, change, message):
    refused(forge(packed, tmp_path / "m.safetensors", change), message)


RECIPES = {
    "other bits": {"bits": 3}, "int8": {"bits": 8, "float_zero_point": False}, "no bits": {"bits": 0},
    "another group": {"group_size": 32}, "symmetric": {"symmetric": True, "float_zero_point": False},
    "a codebook": {"symmetric": True, "float_zero_point": False, "codebook": "kmeans"},
    "a huge group": {"group_size": 1 << 60}, "groups of none": {"group_size": 0},
    "a rule that is none": {"group_size_fallback": "guess"}, "a list": {"bits": [4]},
}  # fmt: skip


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_recipes_that_do_not_fit(packed, tmp_path, changes):
    def change(values):
        values["recipe"]["towers"]["image"]["weights"].update(changes)

    refused(forge_config(packed, tmp_path / "m.safetensors", change))


def test_a_file_is_smaller_and_says_how_many_weights_it_holds(packed, tmp_path, capsys):
    eight = clipq.save(model(TWO_TOWERS, "int8-weight-only"), tmp_path / "int8.safetensors")
    assert packed.stat().st_size < eight.stat().st_size
    stated = []
    for path in (packed, eight):
        assert main(["info", str(path), "--json"]) == 0
        stated.append(json.loads(capsys.readouterr().out)["parameters"])
    assert stated[0] == stated[1]


def test_the_names_and_shapes_of_the_weights_stay_the_hosts(packed):
    module = read(packed).module
    assert shapes(module) == shapes(model(TWO_TOWERS, "fp32").module)
    assert {f"{WEIGHT}_packed", f"{WEIGHT}_scale", f"{WEIGHT}_zero_point"} <= set(slots(module))
    assert WEIGHT not in slots(module)


def test_centres_have_a_name_of_their_own(tmp_path):
    scheme = clipq.Scheme("mine", QuantSpec(bits=4, codebook="kmeans"))
    path = clipq.save(model(TWO_TOWERS, scheme), tmp_path / "m.safetensors")
    assert {f"{WEIGHT}_packed", f"{WEIGHT}_codebook"} <= set(slots(read(path).module))
