"""What the tests of the commands share: a tiny model in a folder, its int8 file, little pictures, a task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli_helpers import COLOURS, CONFIG, measure_quickly
from PIL import Image
from safetensors.torch import save_file

from clipq.cli import main
from clipq.loading import worth

TASK = """
name = "colours"
version = 1
[dataset]
kind = "class-folder"
[prompts]
templates = ["a {c} square"]
"""


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    """A name that clipq.load takes: a tiny random CLIP in an open_clip folder."""
    import open_clip

    folder = tmp_path_factory.mktemp("tiny-clip")
    torch.manual_seed(0)
    tensors = open_clip.CLIP(**CONFIG["model_cfg"]).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    return f"local-dir:{folder}"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Class folders of little squares."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for i in range(4):
            shade = tuple(min(255, value + 5 * i) for value in colour)
            Image.new("RGB", (40, 36), shade).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def quantized(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "tiny.safetensors"
    assert main(["quantize", model, "-o", str(path)]) == 0
    return path


@pytest.fixture
def quick(monkeypatch) -> None:
    """The measurement of this machine, with tiny models."""
    monkeypatch.setattr(worth, "measure", measure_quickly)
    monkeypatch.setattr("clipq.loading.load.measure", measure_quickly)


@pytest.fixture
def task(tmp_path) -> str:
    path = tmp_path / "colours.toml"
    path.write_text(TASK)
    return str(path)


@pytest.fixture
def threads() -> Iterator[None]:
    """Leaves torch's threads as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
