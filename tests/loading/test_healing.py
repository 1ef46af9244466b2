"""A damaged file in the cache is made again, and a line on stderr says so."""

from __future__ import annotations

import pytest
import torch
from tiny_models import build, open_clip_config

import clipq
from clipq.arithmetic.precisions import per_tower
from clipq.errors import CheckpointError
from clipq.files.header import read_header
from clipq.loading import load as loading
from clipq.models import Model
from clipq.zoo import registry

ENTRY = registry.Entry("x", "y", "org/x", "MIT", False, ())


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads the entry from its cache; its base weights are a tiny model's and not a download's."""
    monkeypatch.setattr(
        loading, "load_open_clip", lambda *a, **k: Model(build("open_clip CLIP"), config=open_clip_config())
    )
    return lambda: loading._from_zoo(ENTRY, "int8", per_tower("int8"), torch.device("cpu"), tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut off", "a bit", "nothing of ours"])
def test_a_damaged_build_is_made_again(load, tmp_path, capsys, damage):
    first = load()
    path = registry.built_path(ENTRY, "int8", tmp_path)
    assert "quantizing its base weights" in capsys.readouterr().err
    whole = path.read_bytes()
    bit = bytes([*whole[:-1], whole[-1] ^ 1])
    path.write_bytes({"empty": b"", "cut off": whole[:-9], "a bit": bit, "nothing of ours": b"x" * 99}[damage])
    assert load().fingerprint() == first.fingerprint()
    said = capsys.readouterr().err
    assert said.count("is damaged; it is removed and made again") == 1
    assert str(path) in said
    assert path.read_bytes() == whole
    assert load().fingerprint() == first.fingerprint()
    assert capsys.readouterr().err == ""


def test_what_cannot_be_removed_is_named(load, tmp_path):
    path = registry.built_path(ENTRY, "int8", tmp_path)
    path.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="cannot be removed"):
        load()


def test_a_damaged_file_of_the_users_is_never_removed(tmp_path):
    path = clipq.save(Model(build("open_clip CLIP"), config=open_clip_config()), tmp_path / "mine.safetensors")
    read_header(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError):
        clipq.load(path)
    assert path.exists()
