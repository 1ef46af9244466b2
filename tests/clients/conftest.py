"""What the tests of other libraries share: real drawings, and a model of the hub's shape on disk."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

DRAWINGS = Path(__file__).resolve().parents[2] / "eval" / "data" / "drawings.parquet"


@pytest.fixture(scope="session")
def drawings() -> list[Image.Image]:
    """The first 24 drawings that ship with the evaluation."""
    from pyarrow import parquet

    rows = parquet.read_table(DRAWINGS, columns=["image"]).slice(0, 24)["image"].to_pylist()
    return [Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in rows]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A tiny transformers CLIP with its processor, saved. Not to be changed."""
    from tiny_processors import save_clip

    return save_clip(tmp_path_factory.mktemp("clip"))
