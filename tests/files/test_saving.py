"""Folders for the hub: what other libraries look for, complete or not there, and bit-equal when read back."""

from __future__ import annotations

import json
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
from hub_server import HubServer
from tiny_models import build

import clipq
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import CheckpointError, ClipqError, OutputError
from clipq.files import saving
from clipq.files.checkpoints import read
from clipq.files.header import GUARDED_FILE, MODEL_FILE, read_header
from clipq.files.saving import push_to_hub, quantization_config, save
from clipq.models import Model
from clipq.zoo import hub

PREPROCESSING = {"kind": "open_clip", "size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
SOURCE = {"name": "tiny: a #1 'model'", "base": "someone/base-model", "licence": "MIT"}
RESULTS = {"top-1 int8": 0.625, "top-1 fp32": 0.63}
TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json"}


def published(name: str = OPEN_CLIP, precision="int8", **options) -> Model:
    return model(name, precision, preprocessing=PREPROCESSING, tokenizer=tokenizer_spec(), source=SOURCE, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save(published(), tmp_path_factory.mktemp("saving") / "tiny-int8", results=RESULTS)


def text(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def test_a_path_with_the_suffix_is_one_file(tmp_path):
    path = tmp_path / "tiny.int8.safetensors"
    saved = published()
    assert save(saved, str(path), results=RESULTS) == path
    assert list(tmp_path.iterdir()) == [path]
    assert_same(saved, read(path))
    assert read_header(path).config["results"] == RESULTS


def test_a_module_of_a_host_is_saved_as_it_is(tmp_path):
    module = clipq.quantize(build(IMAGE_ONLY))
    save(module, tmp_path / "vit.safetensors")
    assert_same(Model(module), read(tmp_path / "vit.safetensors"))


def test_an_architecture_that_cannot_be_told_is_not_saved(tmp_path):
    with pytest.raises(ClipqError, match="model_cfg"):
        save(build(OPEN_CLIP), tmp_path / "new" / "tiny.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [OPEN_CLIP, TWO_TOWERS, IMAGE_ONLY, "timm vision_transformer"])
def test_a_folder_is_read_back_bit_equal(name, tmp_path):
    saved = model(name) if name == IMAGE_ONLY else published(name)
    assert save(saved, tmp_path / "deep" / "folder") == tmp_path / "deep" / "folder"
    assert_same(saved, read(tmp_path / "deep" / "folder"))
    assert_same(saved, clipq.load(tmp_path / "deep" / "folder"))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["folder"]


def test_a_folder_has_what_others_look_for(folder):
    files = {"README.md", "config.json", "open_clip_config.json", "preprocessor_config.json", MODEL_FILE}
    assert {path.name for path in folder.iterdir()} == files | TOKENIZER_FILES
    assert folder.stat().st_mode & 0o055 == 0o055
    assert text(folder / "preprocessor_config.json") == PREPROCESSING
    assert text(folder / "config.json")["library"] == "open_clip"


def test_open_clip_builds_the_architecture_from_its_configuration(folder):
    import open_clip

    config = text(folder / "open_clip_config.json")
    assert set(config) == {"model_cfg", "preprocess_cfg"}
    built = open_clip.CLIP(**config["model_cfg"])
    expected = {name: tensor.shape for name, tensor in build(OPEN_CLIP).state_dict().items()}
    assert {name: tensor.shape for name, tensor in built.state_dict().items()} == expected
    settings = open_clip.transform.PreprocessCfg(**config["preprocess_cfg"])
    assert (settings.size, settings.mean, settings.std) == (32, [0.5] * 3, [0.25] * 3)


def test_transformers_reads_the_configuration_and_the_tokenizer(tmp_path):
    from transformers import AutoConfig, AutoTokenizer

    saved = published(TWO_TOWERS)
    path = save(saved, tmp_path / "clip")
    assert not (path / "open_clip_config.json").exists()
    config = AutoConfig.from_pretrained(path)
    assert (config.model_type, config.vision_config.hidden_size, config.text_config.vocab_size) == ("clip", 64, 100)
    assert config.architectures is None or config.architectures == ["CLIPModel"]
    texts = ["a photo of a cat", "dogs!"]
    options = {"max_length": 16, "padding": "max_length", "truncation": True, "return_tensors": "pt"}
    assert torch.equal(AutoTokenizer.from_pretrained(path)(texts, **options).input_ids, saved.tokenizer(texts))


# -- quantization_config: the vocabulary of compressed-tensors, and no claim to be that format ----------------------

FIELDS = {"num_bits", "type", "symmetric", "strategy", "group_size", "dynamic"}


def test_the_quantization_config_tells_the_recipe(folder):
    config = text(folder / "config.json")["quantization_config"]
    assert set(config) == {"config_groups", "clipq_version", "read_by"}
    assert set(config["config_groups"]) == {"group_0", "group_1"}
    for group in config["config_groups"].values():
        assert set(group) == {"targets", "weights", "input_activations"}
        assert set(group["weights"]) == set(group["input_activations"]) == FIELDS
        weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
        assert group["weights"] == {**weights, "group_size": None}
        activations = {**weights, "symmetric": False, "strategy": "token", "dynamic": True, "group_size": None}
        assert group["input_activations"] == activations


def test_every_int8_tensor_is_a_target_of_one_group(folder):
    groups = text(folder / "config.json")["quantization_config"]["config_groups"]
    targets = sorted(name for group in groups.values() for name in group["targets"])
    assert len(targets) == len(set(targets))
    int8 = [name for name, entry in read_header(folder).tensors.items() if entry["dtype"] == "I8"]
    attention = {name for name in targets if name.endswith(".attn")}  # holds two tensors: in_proj and out_proj
    assert len(int8) == len(targets) + len(attention)
    assert all(any(name.startswith(f"{target}.") for target in targets) for name in int8)
    images, texts = (groups[f"group_{i}"]["targets"] for i in range(2))
    assert all(name.startswith("visual.") for name in images)
    assert not any(name.startswith("visual.") for name in texts)


@pytest.mark.parametrize(
    ("precision", "groups", "weight_only"),
    [
        ("fp16", 0, 0),
        ("int8-weight-only", 2, 2),
        ({"image": "int8", "text": "fp16"}, 1, 0),
        ({"image": "int8", "text": "int8-weight-only"}, 2, 1),
    ],
)
def test_one_group_for_each_quantized_tower(precision, groups, weight_only):
    found = quantization_config(model(TWO_TOWERS, precision))["config_groups"]
    assert len(found) == groups
    assert sum(group["input_activations"] is None for group in found.values()) == weight_only


def test_groups_and_tensors_are_named_as_they_are():
    scheme = Scheme("mine", QuantSpec(False, "group", 16), QuantSpec(True, "tensor"))
    group = quantization_config(model(TWO_TOWERS, scheme))["config_groups"]["group_0"]
    assert (group["weights"]["strategy"], group["weights"]["group_size"]) == ("group", 16)
    assert group["weights"]["symmetric"] is False
    assert group["input_activations"]["strategy"] == "tensor"


# -- the card ------------------------------------------------------------------------------------------------------


def card(path: Path):
    from huggingface_hub import ModelCard

    return ModelCard.load(path / "README.md")


def test_the_card_is_one_of_the_hubs(folder):
    front = card(folder).data
    assert (front.base_model, front.base_model_relation) == ("someone/base-model", "quantized")
    assert (front.pipeline_tag, front.library_name, front.license) == ("zero-shot-image-classification", "clipq", "mit")
    assert front.tags == ["clip", "clipq", "open_clip", "int8"]
    body = card(folder).text
    assert "| top-1 int8 | 0.625 |" in body
    assert "int8 weights per channel, activations per token, dynamic" in body
    assert body.count("tower:") == 2


def test_a_card_without_a_base_and_with_one_tower(tmp_path):
    path = save(model(IMAGE_ONLY, "fp16"), tmp_path / "vit")
    front = card(path).data
    assert front.base_model is None
    assert front.to_dict().get("base_model_relation") is None
    assert (front.pipeline_tag, front.license) == ("image-feature-extraction", "other")
    assert "Nothing has been measured" in card(path).text


@pytest.mark.parametrize("name", ["yes", "a: b", "- x", "#1", "12", "null", "multi\nline\n---\nx"])
def test_names_that_mean_something_in_yaml_stay_names(tmp_path, name):
    path = save(model(IMAGE_ONLY, source={"base": name, "licence": name}), tmp_path / "vit")
    front = card(path).data
    assert (front.base_model, front.license, front.library_name) == (name, name, "clipq")


# -- complete or not there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("occupant", ["file", "folder with a file", "folder with a hidden file"])
def test_what_is_there_already_is_not_touched(tmp_path, occupant):
    target = tmp_path / "model"
    if occupant == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / (".hidden" if "hidden" in occupant else "mine.txt")).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="exists already"):
        save(model(IMAGE_ONLY), target)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "model").mkdir()
    save(model(IMAGE_ONLY), tmp_path / "model")
    assert (tmp_path / "model" / GUARDED_FILE).is_file()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_error_half_way_leaves_nothing(tmp_path, monkeypatch, error):
    def broken(*_):
        raise error

    monkeypatch.setattr(saving, "quantization_config", broken)
    with pytest.raises(OutputError if isinstance(error, OSError) else error):
        save(model(IMAGE_ONLY), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_results_that_are_not_json_leave_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="JSON"):
        save(model(IMAGE_ONLY), tmp_path / "model", results={"a": object()})
    assert list(tmp_path.iterdir()) == []


# -- the hub -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # from httpx2, in huggingface_hub's upload
def test_what_is_pushed_can_be_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the server speaks the older protocol
    saved = published()
    with HubServer() as server:
        url = push_to_hub(saved, "me/tiny", token="secret", results=RESULTS, private=True, endpoint=server.url)
        repo = server.repos["me/tiny"]
        assert url == f"{server.url}/me/tiny/commit/{repo.branches['main']}"
        assert repo.private
        assert TOKENIZER_FILES | {MODEL_FILE, "README.md", "config.json"} <= set(repo.files("main"))
        repo.private = False
        path = hub.download("me/tiny", MODEL_FILE, cache_dir=tmp_path, endpoint=server.url)
    assert_same(saved, read(path))


def test_a_refused_upload_is_one_error():
    with HubServer() as server, pytest.raises(hub.UploadError, match="me/tiny"):
        push_to_hub(model(IMAGE_ONLY), "me/tiny", token="wrong", endpoint=server.url)
