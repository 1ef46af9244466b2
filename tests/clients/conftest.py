"""Real drawings, models of the hub's shape on disk, and a place to run pages in."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image

ALL_MARKED = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.clients\b", re.MULTILINE)
DRAWINGS = Path(__file__).resolve().parents[2] / "eval" / "data" / "drawings.parquet"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without the marker, nobody waits for the imports of modules that have no other tests, unless they are named."""
    if config.option.markexpr != "not clients" or collection_path.suffix != ".py":
        return None
    named = {Path(one.partition("::")[0]).resolve() for one in config.args}
    return True if collection_path not in named and ALL_MARKED.search(collection_path.read_text("utf-8")) else None


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


@pytest.fixture(scope="session")
def open_clip_folder(tmp_path_factory) -> Path:
    """A tiny open_clip model as a folder that "local-dir:" loads. Not to be changed."""
    from tiny_models import save_open_clip

    return save_open_clip(tmp_path_factory.mktemp("open_clip"), "open_clip CLIP")


@pytest.fixture
def place(tmp_path, monkeypatch, drawings) -> Path:
    """The folder that a page's blocks are run in: the pictures they name lie there."""
    for name, picture in zip(("photos/cat", "photos/dog", "classes/cat/0", "classes/dog/1"), drawings, strict=False):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path
