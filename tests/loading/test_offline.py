"""A local path never touches the network: every kind of it is loaded with every connection watched."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import forge_config, hf_tokenizer, tokenizer_spec
from tiny_models import build, open_clip_config

import clipq
from clipq.errors import CheckpointError, ClipqError
from clipq.models import Model
from clipq.zoo.offline import no_network

NOWHERE = "someone/text-tower-that-is-nowhere"
ROBERTA = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 20,
}
TEXT_CFG = {"hf_pooler_type": "mean_pooler", "hf_proj_type": "mlp", "hf_model_pretrained": False, "context_length": 16}
IDS = torch.arange(2, 34).reshape(2, 16)


@pytest.fixture(autouse=True)
def asked(monkeypatch) -> list:
    """What was asked of the network: nothing, or the test fails, even where a library goes on without an answer."""
    found = []

    def refuse(*arguments, **options):
        found.append(arguments)
        raise ConnectionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield found
    assert found == []


@pytest.fixture(scope="module")
def towered(tmp_path_factory) -> Model:
    """An open_clip model with a Hugging Face text tower, whose name is nowhere on the hub."""
    import open_clip
    from transformers import RobertaConfig

    folder = tmp_path_factory.mktemp("roberta")
    RobertaConfig(**ROBERTA).save_pretrained(folder)
    config = open_clip_config()
    config["text_cfg"] = {**TEXT_CFG, "hf_model_name": str(folder), "hf_tokenizer_name": NOWHERE}
    text = {k: v for k, v in config["text_cfg"].items() if k != "hf_tokenizer_name"}
    torch.manual_seed(0)
    module = open_clip.CustomTextCLIP(48, config["vision_cfg"], text).eval()
    config["text_cfg"]["hf_model_name"] = NOWHERE
    return Model(module, config={**config, "custom_text": True}, tokenizer=tokenizer_spec(16))


@pytest.fixture
def transformers_folder(tmp_path) -> Path:
    build("transformers CLIP").save_pretrained(tmp_path / "hf")
    hf_tokenizer().save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))


def test_a_file_with_a_hugging_face_text_tower_needs_no_hub(towered, tmp_path):
    for target in (tmp_path / "m.safetensors", tmp_path / "folder"):
        again = clipq.load(clipq.save(towered, target), precision="fp32")
        assert torch.equal(again.encode_text(IDS), towered.encode_text(IDS))
        assert again.encode_text("a cat").shape == (1, 48)
        assert again.module.text.config.name_or_path == NOWHERE
        twice = clipq.load(clipq.save(again, tmp_path / f"{target.name}.again"), precision="fp32")
        assert torch.equal(twice.encode_text(IDS), towered.encode_text(IDS))
    for_open_clip = json.loads((tmp_path / "folder" / "open_clip_config.json").read_text())["model_cfg"]
    assert for_open_clip["text_cfg"]["hf_model_name"] == NOWHERE
    assert "hf_text_config" not in for_open_clip


def test_an_old_file_without_the_towers_configuration_is_refused(towered, tmp_path):
    new = clipq.save(towered, tmp_path / "new.safetensors")
    old = forge_config(new, tmp_path / "old.safetensors", lambda values: values["config"].pop("hf_text_config"))
    with pytest.raises(CheckpointError, match=f"{NOWHERE}.*AutoConfig.from_pretrained"):
        clipq.load(old)
    wrong = forge_config(
        new, tmp_path / "x.safetensors", lambda values: values["config"].update(hf_text_config=NOWHERE)
    )
    with pytest.raises(CheckpointError, match="is no table"):
        clipq.load(wrong)


@pytest.mark.parametrize("prefix", ["local-dir:", ""])
def test_open_clips_folders(open_clip_folder, prefix):
    assert clipq.load(f"{prefix}{open_clip_folder}").encode_text("a cat").shape == (1, 48)


@pytest.mark.parametrize(
    ("tower", "values"),
    [
        ("text_cfg", {**TEXT_CFG, "hf_model_name": NOWHERE, "hf_model_pretrained": True}),
        ("text_cfg", {**open_clip_config()["text_cfg"], "hf_tokenizer_name": NOWHERE}),
        ("vision_cfg", {"timm_model_name": f"hf-hub:{NOWHERE}", "timm_model_pretrained": True, "image_size": 32}),
    ],
)
def test_names_in_open_clips_folders_are_not_looked_up(open_clip_folder, tower, values):
    path = open_clip_folder / "open_clip_config.json"
    settings = json.loads(path.read_text())
    settings["model_cfg"][tower] = values
    path.write_text(json.dumps(settings))
    with pytest.raises(ClipqError):
        clipq.load(open_clip_folder)


def test_a_folder_without_weights(open_clip_folder):
    (open_clip_folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ClipqError):
        clipq.load(open_clip_folder)


def test_transformers_folders(transformers_folder):
    model = clipq.load(transformers_folder)
    assert model.encode_text("a cat").shape == (1, 512)
    assert clipq.load(clipq.save(model, transformers_folder / "x.safetensors")).encode_text("a cat").shape == (1, 512)


def test_names_in_transformers_folders_are_not_looked_up(transformers_folder):
    edit(transformers_folder / "config.json", _name_or_path=NOWHERE, _attn_implementation=NOWHERE)
    edit(transformers_folder / "tokenizer_config.json", name_or_path=NOWHERE, tokenizer_class="LlamaTokenizer")
    with contextlib.suppress(ClipqError):  # refused is as good as read; what must not be is in the fixture
        clipq.load(transformers_folder)
    edit(transformers_folder / "adapter_config.json", base_model_name_or_path=NOWHERE, peft_type="LORA")
    with contextlib.suppress(ClipqError):
        clipq.load(transformers_folder)


def test_a_transformers_folder_without_weights(transformers_folder):
    (transformers_folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        clipq.load(transformers_folder)
    shutil.rmtree(transformers_folder)
    transformers_folder.mkdir()
    edit(transformers_folder / "config.json", model_type="clip")
    with pytest.raises(CheckpointError):
        clipq.load(transformers_folder)


def test_only_the_thread_that_loads_is_offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    seen = []
    with no_network(), no_network():
        other = threading.Thread(target=lambda: seen.append(bool(constants.is_offline_mode())))
        other.start()
        other.join()
        assert constants.is_offline_mode()
    assert seen == [False]
    assert constants.HF_HUB_OFFLINE is False
