"""What the tests of the commands share: a tiny model in a folder, its int8 file, and little pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipq.cli import main

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (30, 60, 220)}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A name that clipq.load takes: a tiny random CLIP in an open_clip folder."""
    import open_clip

    folder = tmp_path_factory.mktemp("tiny-clip")
    torch.manual_seed(0)
    tensors = open_clip.CLIP(**CONFIG["model_cfg"]).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Class folders of little squares."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for i in range(4):
            shade = tuple(min(255, value + 5 * i) for value in colour)
            Image.new("RGB", (40, 36), shade).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def quantized(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "tiny.safetensors"
    assert main(["quantize", model, "-o", str(path)]) == 0
    return path


def error_of(capsys) -> str:
    """The one line that a failed command leaves on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("clipq: error: ")
    return line
