"""A folder as open_clip publishes models, for the tests of loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file
from tiny_models import build, open_clip_config


@pytest.fixture
def open_clip_folder(tmp_path) -> Path:
    """A model as open_clip publishes it: configuration and weights in a folder."""
    folder = tmp_path / "published"
    folder.mkdir()
    config = {"model_cfg": open_clip_config(quick_gelu=True), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(build("open_clip CLIP QuickGELU").state_dict(), folder / "open_clip_model.safetensors")
    return folder
