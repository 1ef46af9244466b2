"""Files with valid hashes that nobody should trust: each gives one error that names the file and the tensor."""

from __future__ import annotations

import json
import zlib

import pytest
from checkpoint_helpers import forge, forge_config, refused

from clipq.files.checkpoints import read

WEIGHT = "vision_model.encoder.layers.0.mlp.fc1"


def test_what_the_forger_leaves_alone_is_read(two_tower_file, tmp_path):
    """Otherwise every test below would pass for the wrong reason."""
    same = read(forge_config(two_tower_file, tmp_path / "m.safetensors", lambda config: None))
    assert same.fingerprint() == read(two_tower_file).fingerprint()


def test_a_flipped_bit_gives_no_model(two_tower_file, tmp_path):
    raw = bytearray(two_tower_file.read_bytes())
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


EMPTY = {"dtype": "I8", "shape": [0], "data_offsets": [0, 0]}
TENSORS = {
    "missing": (rename(f"{WEIGHT}.bias", f"{WEIGHT}.offset"), f"tensor '{WEIGHT}.bias' is missing"),
    "scale missing": (rename(f"{WEIGHT}.weight_scale", "x"), f"tensor '{WEIGHT}.weight_scale' is missing"),
    "extra": (lambda entries, data: entries.update(x=EMPTY), "tensor 'x' is not part"),
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
def test_tensors_that_are_not_the_models(two_tower_file, tmp_path, change, message):
    refused(forge(two_tower_file, tmp_path / "m.safetensors", change), message)


def put(*path_and_value):
    *path, value = path_and_value

    def change(config):
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


def host(name, **config):
    return lambda values: values.update(host=name, config=config)


FC1 = ("recipe", "modules", WEIGHT)
IMAGE = ("recipe", "towers", "image")
TRUNK = {"timm_model_name": "hf-hub:someone/model", "image_size": 32}
CONFIGS = {
    "another width": put("config", "vision_config", "hidden_size", 32),
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
    "a timm model of the hub": host("timm", arch="hf-hub:someone/model"),
    "a timm model of a folder": host("timm", arch="local-dir:/"),
    "a timm model that does not exist": host("timm", arch="os"),
    "a timm model that is no name": host("timm", arch=["test_vit"]),
    "a timm trunk of the hub": host("open_clip", embed_dim=48, custom_text=True, vision_cfg=TRUNK, text_cfg={}),
    "an unknown option of open_clip": host("open_clip", embed_dim=48, vision_cfg={}, text_cfg={}, checkpoint="x.pt"),
    "no configuration": host("open_clip"),
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
    "a group size that is a word": put(*IMAGE, "weights", {"granularity": "group", "group_size": "x"}),
    "a group size that does not divide": put(*IMAGE, "weights", {"granularity": "group", "group_size": 1 << 40}),
    "a name that is a list": put(*IMAGE, "name", ["int8"]),
    "a symmetry that is a word": put(*IMAGE, "weights", "symmetric", "no"),
    "a tokenizer that is a list": put("tokenizer", ["open_clip"]),
    "a source that is a list": put("source", []),
}


@pytest.mark.parametrize("change", CONFIGS.values(), ids=CONFIGS)
def test_configurations_that_do_not_fit(two_tower_file, tmp_path, change):
    refused(forge_config(two_tower_file, tmp_path / "m.safetensors", change))


def test_a_configuration_cannot_choose_code_to_run(two_tower_file, tmp_path):
    def change(config):
        for part in (config["config"], config["config"]["vision_config"]):
            part["attn_implementation"] = part["_attn_implementation"] = "someone/kernel"
            part["auto_map"] = {"AutoModel": "someone/code--model.Model"}

    honest = read(two_tower_file).module.config
    forged = read(forge_config(two_tower_file, tmp_path / "m.safetensors", change)).module.config
    assert forged.vision_config._attn_implementation == honest.vision_config._attn_implementation
    assert forged._attn_implementation == honest._attn_implementation
    assert not hasattr(forged, "auto_map")


TOKENIZERS = {
    "a zip bomb": zlib.compress(bytes(130 << 20), 1),
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
def test_tokenizers_that_are_none(two_tower_file, tmp_path, packed):
    def change(entries, data):
        begin, end = entries["clipq.tokenizer"]["data_offsets"]
        assert end == len(data)  # safetensors puts the narrowest dtype last, in the order of names
        data[begin:end] = packed
        entries["clipq.tokenizer"] |= {"shape": [len(packed)], "data_offsets": [begin, begin + len(packed)]}

    refused(forge(two_tower_file, tmp_path / "m.safetensors", change), "clipq.tokenizer")


SETTINGS = {
    "no kind of preprocessing": put("preprocessing", {"size": 32}),
    "an unknown kind of preprocessing": put("preprocessing", {"kind": ["timm"]}),
    "timm's interpolation is a number": put("preprocessing", {"kind": "timm", "interpolation": 3}),
    "a mean of two numbers": put("preprocessing", {"kind": "open_clip", "mean": [0.5, 0.5]}),
    "a size that is a word": put("preprocessing", {"kind": "open_clip", "size": "32"}),
    "a size of an hour": put("preprocessing", {"kind": "open_clip", "size": 60000}),
    "strip_sep_token is a word": put("tokenizer", "strip_sep_token", "no"),
    "texts longer than the tower's": put("tokenizer", "context_length", 17),
}


@pytest.mark.parametrize("change", SETTINGS.values(), ids=SETTINGS)
def test_settings_that_are_none_are_refused_by_the_load(two_tower_file, tmp_path, change):
    refused(forge_config(two_tower_file, tmp_path / "m.safetensors", change))
