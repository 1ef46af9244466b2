"""Files: bit-equal after reload, strict about what is in them, written completely or not at all."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import (
    IMAGE_ONLY,
    OPEN_CLIP,
    TWO_TOWERS,
    assert_same,
    forge,
    forge_config,
    model,
    split,
    tokenizer_spec,
)
from tiny_models import BUILDERS

from clipq import checkpoints, header
from clipq.checkpoints import read, write
from clipq.errors import CheckpointError
from clipq.schemes import QuantSpec, Scheme

ROOT = Path(__file__).resolve().parent.parent
PER_GROUP = Scheme("per-group", QuantSpec(False, "group", 16), QuantSpec(True, "token"), None, "bf16")
PER_TENSOR = Scheme("per-tensor", QuantSpec(True, "tensor"), QuantSpec(False, "tensor"))
WEIGHT = "vision_model.encoder.layers.0.mlp.fc1"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A file with two towers and a tokenizer."""
    path = tmp_path_factory.mktemp("checkpoints") / "clip.safetensors"
    write(model(TWO_TOWERS, tokenizer=tokenizer_spec()), path)
    return path


def refused(path: Path, *words: str) -> None:
    beside = sorted(path.parent.iterdir())
    with pytest.raises(CheckpointError) as caught:
        read(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert sorted(path.parent.iterdir()) == beside


# -- what was written comes back -----------------------------------------------------------------------------------


def round_trip(saved, path: Path) -> None:
    write(saved, path)
    assert_same(saved, read(path))


@pytest.mark.parametrize("name", BUILDERS)
def test_int8_is_bit_equal_after_reload(name, tmp_path):
    with pytest.warns() if name in ("open_clip ConvNeXt", "open_clip ResNet") else _no_warning():
        saved = model(name)
    round_trip(saved, tmp_path / "m.safetensors")


class _no_warning:
    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


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
@pytest.mark.parametrize("name", [OPEN_CLIP, TWO_TOWERS, "timm vision_transformer"])
def test_every_precision_is_bit_equal_after_reload(name, precision, tmp_path):
    round_trip(model(name, precision), tmp_path / "m.safetensors")


@pytest.mark.parametrize("fallback", ["fp32", "fp16", "bf16"])
def test_the_fallback_precision_is_kept(fallback, tmp_path):
    saved = model(TWO_TOWERS, fallback=fallback)
    round_trip(saved, tmp_path / "m.safetensors")
    dtypes = {tensor["dtype"] for tensor in header.read_header(tmp_path / "m.safetensors").tensors.values()}
    assert {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}[fallback] in dtypes


def test_a_file_saved_again_is_the_same_file(good, tmp_path):
    write(read(good), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == good.read_bytes()


def test_everything_else_comes_back(tmp_path):
    path = tmp_path / "m.safetensors"
    preprocessing = {"kind": "open_clip", "size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    saved = model(OPEN_CLIP, preprocessing=preprocessing, tokenizer=tokenizer_spec(), source={"tag": "none", "n": 1})
    results = {"accuracy": 0.625, "images": 500, "task": "drawings", "cosine": {"image": [0.999, None]}}
    write(saved, path, results)
    assert_same(saved, read(path))
    assert header.read_header(path).config["results"] == results
    assert torch.equal(read(path).tokenizer("a photo of a cat"), saved.tokenizer("a photo of a cat"))


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
    text = path.read_bytes()[: header.read_header(path).data_start].decode()
    assert not [word for word in ("cpu", "cuda", "native", "int_mm", "qweight", str(tmp_path)) if word in text]


def test_the_matrix_of_int8_weights_is_a_quarter_of_fp32(tmp_path):
    sizes = {}
    for precision in ("int8", "fp32", "fp16"):
        write(model(OPEN_CLIP, precision, fallback="fp32"), tmp_path / precision)
        sizes[precision] = (tmp_path / precision).stat().st_size
    assert sizes["fp32"] / sizes["int8"] > 3.3  # a token embedding 32 wide has a scale for every 32 weights
    assert 1.9 < sizes["fp32"] / sizes["fp16"] < 2.01


# -- what was not written by clipq, though its hashes are right ----------------------------------------------------


def test_a_flipped_bit_gives_no_model(good, tmp_path):
    raw = bytearray(good.read_bytes())
    raw[-5] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(raw)
    refused(tmp_path / "flipped.safetensors", "sha256")


def rename(old, new):
    return lambda entries, data: entries.update({new: entries.pop(old)})


def retype(name, dtype, shape=None):
    def change(entries, data):
        entries[name] |= {"dtype": dtype, "shape": shape or entries[name]["shape"]}

    return change


def not_a_number(name):
    def change(entries, data):
        start = entries[name]["data_offsets"][0]
        data[start : start + 4] = b"\0\0\xc0\x7f"

    return change


TENSORS = {
    "missing": (rename(f"{WEIGHT}.bias", f"{WEIGHT}.offset"), f"tensor '{WEIGHT}.bias' is missing"),
    "scale missing": (rename(f"{WEIGHT}.weight_scale", "x"), f"tensor '{WEIGHT}.weight_scale' is missing"),
    "extra": (lambda e, d: e.update(x={"dtype": "I8", "shape": [0], "data_offsets": [0, 0]}), "tensor 'x' is not part"),
    "another shape": (retype(f"{WEIGHT}.weight", "I8", [64, 128]), f"tensor '{WEIGHT}.weight' has shape [64, 128]"),
    "flat": (retype(f"{WEIGHT}.weight_scale", "F32", [128]), f"tensor '{WEIGHT}.weight_scale' has shape [128]"),
    "unsigned": (retype(f"{WEIGHT}.weight", "U8"), f"tensor '{WEIGHT}.weight' has dtype torch.uint8"),
    "integer scales": (retype(f"{WEIGHT}.weight_scale", "I32"), f"tensor '{WEIGHT}.weight_scale' has dtype"),
    "integer bias": (retype(f"{WEIGHT}.bias", "I32"), f"tensor '{WEIGHT}.bias' has dtype torch.int32"),
    "scales that are not finite": (not_a_number(f"{WEIGHT}.weight_scale"), f"'{WEIGHT}.weight_scale' has scales"),
    "no tokenizer": (rename("clipq.tokenizer", "clipq.other"), "tensor 'clipq.tokenizer' is missing"),
    "signed tokenizer": (retype("clipq.tokenizer", "I8"), "tensor 'clipq.tokenizer'"),
}


@pytest.mark.parametrize(("change", "message"), TENSORS.values(), ids=TENSORS)
def test_tensors_that_are_not_the_models(good, tmp_path, change, message):
    refused(forge(good, tmp_path / "m.safetensors", change), message)


def put(*path_and_value):
    *path, value = path_and_value

    def change(config):
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


FC1 = ("recipe", "modules", WEIGHT)
IMAGE = ("recipe", "towers", "image")
CONFIGS = {
    "another architecture": put("config", "vision_config", "hidden_size", 32),
    "more layers": put("config", "text_config", "num_hidden_layers", 3),
    "one layer less": put("config", "text_config", "num_hidden_layers", 1),
    "another class": put("config", "class", "SiglipModel"),
    "a class that is a module": put("config", "class", "os"),
    "a class that is a function": put("config", "class", "pipeline"),
    "a class that is a configuration": put("config", "class", "CLIPConfig"),
    "a class that is no name": put("config", "class", ["CLIPModel"]),
    "no class": lambda config: config["config"].pop("class"),
    "a text configuration that is none": put("config", "text_config", 3),
    "an activation that does not exist": put("config", "text_config", "hidden_act", "os.system"),
    "a width that is no number": put("config", "vision_config", "hidden_size", "wide"),
    "a negative width": put("config", "vision_config", "hidden_size", -64),
    "another host": put("host", "open_clip"),
    "an unknown host": put("host", "os"),
    "a timm model of the hub": lambda config: config.update(host="timm", config={"arch": "hf-hub:someone/model"}),
    "a timm model of a folder": lambda config: config.update(host="timm", config={"arch": "local-dir:/"}),
    "a timm model that does not exist": lambda config: config.update(host="timm", config={"arch": "os"}),
    "an unknown kind": put(*FC1, "os.system"),
    "a kind that does not fit": put(*FC1, "embedding"),
    "a kind that is a list": put(*FC1, ["linear"]),
    "an unknown module": put("recipe", "modules", "vision_model.nothing", "linear"),
    "the whole model": put("recipe", "modules", "", "linear"),
    "a module of neither tower": put("recipe", "modules", "logit_scale", "linear"),
    "a module left out": lambda config: config["recipe"]["modules"].pop(WEIGHT),
    "modules that are no table": put("recipe", "modules", 3),
    "no modules": lambda config: config["recipe"].pop("modules"),
    "no towers": put("recipe", "towers", {}),
    "a tower too many": lambda config: config["recipe"]["towers"].update(audio=config["recipe"]["towers"]["image"]),
    "a scheme that is a name": put(*IMAGE, "int8"),
    "a scheme of 4 bits": put(*IMAGE, "weights", "bits", 4),
    "a scheme with an unknown granularity": put(*IMAGE, "weights", "granularity", "row"),
    "a scheme with an unknown field": put(*IMAGE, "weights", "eval", "1"),
    "a scheme with an unknown fallback": put(*IMAGE, "fallback", "fp64"),
    "a group size that is a word": lambda config: config["recipe"]["towers"]["image"]["weights"].update(
        granularity="group", group_size="x"
    ),
    "a name that is a list": put(*IMAGE, "name", ["int8"]),
    "a symmetry that is a word": put(*IMAGE, "weights", "symmetric", "no"),
    "a tokenizer that is a list": put("tokenizer", ["open_clip"]),
    "a source that is a list": put("source", []),
}


@pytest.mark.parametrize("change", CONFIGS.values(), ids=CONFIGS)
def test_configurations_that_do_not_fit(good, tmp_path, change):
    refused(forge_config(good, tmp_path / "m.safetensors", change))


def test_a_configuration_cannot_choose_code_to_run(good, tmp_path):
    def change(config):
        for part in (config["config"], config["config"]["vision_config"]):
            part["attn_implementation"] = part["_attn_implementation"] = "someone/kernel"
            part["auto_map"] = {"AutoModel": "someone/code--model.Model"}

    forged = read(forge_config(good, tmp_path / "m.safetensors", change))
    assert forged.module.config._attn_implementation == forged.module.config.vision_config._attn_implementation
    assert forged.module.config._attn_implementation == read(good).module.config._attn_implementation


TOKENIZERS = {
    "a zip bomb": zlib.compress(bytes(300 << 20)),
    "cut off": zlib.compress(json.dumps({"tokenizer.json": "{}"}).encode())[:-3],
    "not compressed": b"hello",
    "nested": zlib.compress(b"[" * 200_000),
    "a list": zlib.compress(b'["tokenizer.json"]'),
    "contents that are no text": zlib.compress(b'{"tokenizer.json":3}'),
    **{
        f"a file called {name!r}": zlib.compress(json.dumps({name: "{}"}).encode())
        for name in ("../x.json", "/x.json", "a/b.json", "a\\b.json", "..", "", "a\0.json", "model.py", "config.json")
    },
}


@pytest.mark.parametrize("packed", TOKENIZERS.values(), ids=TOKENIZERS)
def test_tokenizers_that_are_none(good, tmp_path, packed):
    def change(entries, data):
        start = max((e["data_offsets"][1] for n, e in entries.items() if n[0] != "_" and n != "clipq.tokenizer"))
        _, end = entries["clipq.tokenizer"]["data_offsets"]
        assert end == len(data) or start == len(data)
        begin = entries["clipq.tokenizer"]["data_offsets"][0]
        data[begin:end] = packed
        entries["clipq.tokenizer"] |= {"shape": [len(packed)], "data_offsets": [begin, begin + len(packed)]}

    refused(forge(good, tmp_path / "m.safetensors", change), "clipq.tokenizer")
