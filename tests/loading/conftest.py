"""A folder as open_clip publishes models, for the tests of loading."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import save_open_clip


@pytest.fixture
def open_clip_folder(tmp_path) -> Path:
    """A model as open_clip publishes it: configuration and weights in a folder."""
    folder = tmp_path / "published"
    folder.mkdir()
    return save_open_clip(folder, "open_clip CLIP QuickGELU")
