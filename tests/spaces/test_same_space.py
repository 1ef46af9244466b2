"""`space_of` and `check_same_space` over everything that has a space: models, files, what `clipq embed` wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import OPEN_CLIP, TWO_TOWERS, forge, forge_config, model, tokenizer_spec
from PIL import Image
from tiny_models import build

import clipq
from clipq.cli import info
from clipq.embedding import Embedder, ShardedFolder, embed, embed_into, save_embeddings
from clipq.errors import CheckpointError, DataError, SpaceError, UnknownNameError
from clipq.files.spaces import KEY
from clipq.matrices import FORMATS, read_about, read_embeddings, read_shards
from clipq.models import Model

PIXELS = {"kind": "open_clip", "size": 32}


@pytest.fixture(scope="module")
def own() -> Model:
    return model(TWO_TOWERS, tokenizer=tokenizer_spec(), preprocessing=PIXELS)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(5):
        Image.new("RGB", (40, 30), (50 * i, 90, 0)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def outputs(own, source, tmp_path_factory) -> dict[str, Path]:
    """Of each format, and folders of shards of both."""
    folder = tmp_path_factory.mktemp("outputs")
    found, made = embed(own, source, progress=False), {}
    for end in FORMATS:
        made[end] = folder / f"photos{end}"
        save_embeddings(found, made[end])
    for format in ("safetensors", "parquet"):
        made[format] = folder / format
        embed_into(own, source, ShardedFolder(made[format], 2, format), progress=False)
    return made


def test_every_output_says_its_space_and_what_it_is_made_of(own, outputs):
    space = own.space("image")
    for path in outputs.values():
        about = read_about(path)
        assert about["space_id"] == space.id and about["space"] == space.components and "names" not in about
        assert read_embeddings(path).about["space_id"] == space.id and clipq.space_of(path) == space
        clipq.check_same_space(own, path)
        clipq.check_same_space(path, outputs[".npy"])
        clipq.check_same_space(read_embeddings(path), str(path))
    assert json.loads(Path(f"{outputs['.npy']}.json").read_text())["space_id"] == space.id
    assert all(shard.about["space_id"] == space.id for shard in read_shards(outputs["parquet"]))


def test_a_model_is_asked_for_vectors_made_as_those_of_the_output(own, source, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("a cat\na dog\n")
    texts, plain = embed(own, lines, progress=False), embed(own, source, normalize=False, progress=False)
    clipq.save(own, tmp_path / "model.safetensors")
    for found in (texts, plain, plain.as_dtype("float16")):
        clipq.check_same_space(found, own)
        clipq.check_same_space(tmp_path / "model.safetensors", found)
    assert clipq.space_of(texts).tower == "text" and clipq.space_of(texts) == own.space("text")
    with pytest.raises(SpaceError, match=r'They differ in tower: "text" and "image"\.'):
        clipq.check_same_space(texts, embed(own, source, progress=False))
    with pytest.raises(SpaceError, match="normalized: false and true"):
        clipq.check_same_space(plain, embed(own, source, progress=False))
    with pytest.raises(SpaceError, match="is of the text tower, not of 'image'"):
        clipq.space_of(texts, "image")


def test_two_models_are_compared_in_what_they_share(own, tmp_path):
    other = model(TWO_TOWERS, {"image": "int8", "text": "fp32"}, tokenizer=tokenizer_spec(), preprocessing=PIXELS)
    clipq.check_same_space(own, other, "image")
    with pytest.raises(SpaceError, match=r"\(.{16}\) and .* \(.{16}\) are not of the same .* weights: .* scheme\."):
        clipq.check_same_space(own, other)
    alone = model("timm vision_transformer", "fp32", preprocessing=PIXELS)
    with pytest.raises(SpaceError, match=r"architecture\.arch: nothing and .* \(and \d+ more of it\)"):
        clipq.check_same_space(own, alone)
    with pytest.raises(SpaceError, match="no text tower to compare"):
        clipq.check_same_space(alone, own, "text")
    lines = tmp_path / "lines.txt"
    lines.write_text("a cat\n")
    with pytest.raises(SpaceError, match="has no text tower, only image"):
        clipq.check_same_space(embed(own, lines, progress=False), alone)
    assert clipq.space_of(alone) == alone.space("image")
    with pytest.raises(UnknownNameError, match=r"unknown tower None.*image, text"):
        clipq.space_of(own)


def test_a_plain_module_is_wrapped():
    module = build("timm vision_transformer")
    assert clipq.space_of(module) == Model(module).space("image")


def test_an_embedder_is_asked_for_what_it_makes(own, outputs, tmp_path):
    clipq.save(own, tmp_path / "model.safetensors")
    named = Embedder(tmp_path / "model.safetensors", decode="scaled", normalize=False)
    assert clipq.space_of(named, "image") == own.space("image", "scaled", normalized=False)
    clipq.check_same_space(Embedder(own), outputs[".npy"])
    clipq.check_same_space(Embedder(own), Embedder(tmp_path / "model.safetensors"))
    with pytest.raises(SpaceError, match="decode: .* normalized: "):
        clipq.check_same_space(named, outputs[".npy"])
    clipq.check_same_space(named, own)  # made as the embedder makes them
    clipq.check_same_space(own, named)
    with pytest.raises(SpaceError, match="decode: .* normalized: "):
        clipq.check_same_space(named, Embedder(own))
    alone = model("timm vision_transformer", "fp32", preprocessing=PIXELS)
    assert clipq.space_of(Embedder(alone)) == alone.space("image")
    with pytest.raises(SpaceError, match="no text tower to compare"):
        clipq.check_same_space(Embedder(alone), Embedder(own), "text")


def test_an_embedder_asks_a_model_of_a_file_once_and_one_in_memory_each_time(own, tmp_path, monkeypatch):
    clipq.save(model(TWO_TOWERS, preprocessing=PIXELS), path := tmp_path / "model.safetensors")
    named, hashed = Embedder(path, tower="image"), []
    expected = named.space("image")
    monkeypatch.setattr("clipq.runtime.model.RuntimeModel.space", lambda *args: hashed.append(args))
    assert Embedder(path, batch_size=2).space("image") == expected and not hashed
    changed = model(TWO_TOWERS, preprocessing=PIXELS)
    before = Embedder(changed).space_id("image")
    with torch.no_grad():
        changed.module.vision_model.post_layernorm.weight.mul_(2)
    assert Embedder(changed).space_id("image") != before == expected.id


def test_an_output_that_knows_no_space_says_what_to_do(own, outputs, source, tmp_path):
    found = read_embeddings(outputs[".parquet"])
    about = {key: value for key, value in found.about.items() if key not in ("space", "space_id")}
    save_embeddings(replace(found, about=about), tmp_path / "old.parquet")
    for old in (tmp_path / "old.parquet", replace(found, about=about)):
        with pytest.raises(SpaceError, match="made by clipq before 0.8 .* `clipq embed`, .* `clipq drift`"):
            clipq.check_same_space(old, own)
    about = {**found.about, "space": {**found.about["space"], "weights": "0" * 64}}
    with pytest.raises(SpaceError, match="not those of that id"):
        clipq.space_of(replace(found, about=about))


@pytest.mark.parametrize("end", FORMATS)
def test_what_is_no_output_is_named(end, tmp_path):
    path = tmp_path / f"x{end}"
    with pytest.raises(DataError, match=path.name):
        clipq.space_of(path)
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(DataError, match=path.name):
        clipq.space_of(path)


def test_what_a_header_says_wrongly_is_hashed_or_refused(own, tmp_path):
    path, target = tmp_path / "model.safetensors", tmp_path / "forged.safetensors"
    clipq.save(own, path)
    expected = own.space("text")
    for wrong in (None, [], {"format": 99}, {"format": 1, "text": 3}):
        forge_config(path, target, lambda config, wrong=wrong: config.update({KEY: wrong}))
        assert clipq.space_of(target, "text") == expected
    changes = {
        "host": "tensorflow",
        "preprocessing": {"kind": "x"},
        "recipe": {"towers": {"text": {"name": 3}}, "modules": {}},
    }
    for key, wrong in changes.items():
        forge_config(path, target, lambda config, key=key, wrong=wrong: config.update({key: wrong}))
        with pytest.raises(CheckpointError, match=r"forged\.safetensors"):
            clipq.space_of(target, "text")


@pytest.mark.parametrize("key", ["id", "weights", "tokenizer"])
def test_what_a_header_says_of_its_spaces_is_checked(key, own, tmp_path):
    path, target = tmp_path / "model.safetensors", tmp_path / "forged.safetensors"
    clipq.save(own, path)
    forge_config(path, target, lambda config: config[KEY]["text"].update({key: "f" * len(config[KEY]["text"][key])}))
    for ask in (clipq.space_of, lambda file, tower: info.about_file(file)):
        with pytest.raises(CheckpointError, match="says that its text tower is of the space"):
            ask(target, "text")
    assert clipq.space_of(target, "image") == own.space("image")
    forge_config(path, target, lambda config: config[KEY]["text"].pop(key))
    with pytest.raises(CheckpointError, match="not whole"):
        clipq.space_of(target, "text")


def test_a_space_that_is_of_other_tensors_is_refused_where_they_are_read(own, tmp_path):
    path, target = tmp_path / "model.safetensors", tmp_path / "forged.safetensors"
    clipq.save(own, path)

    def swap(header: dict, data: bytearray) -> None:
        start, end = header["vision_model.post_layernorm.weight"]["data_offsets"]
        data[start:end] = data[start:end][::-1]

    forge(path, target, swap)
    runtime = clipq.runtime.load(target)
    assert clipq.space_of(target, "image") == own.space("image") != clipq.load(target).space("image")
    assert runtime.space("text") == own.space("text")
    with pytest.raises(CheckpointError, match="tensors of the image tower are not those"):
        runtime.space("image")
    with pytest.raises(CheckpointError, match="tensors of the image tower are not those"):
        Embedder(target).space("image")


def test_a_folder_for_the_hub_is_a_model(tmp_path):
    own = model(OPEN_CLIP)
    clipq.save(own, tmp_path / "folder")
    clipq.check_same_space(tmp_path / "folder", own)
