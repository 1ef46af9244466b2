"""Fixtures shared by all tests: the tiny models of every host, and the real data where it lies beside the project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Waking a second thread costs more than these models do."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> Callable[[str], nn.Module]:
    """`tiny(name)` builds one of tests/helpers/tiny_models.py's models."""
    from tiny_models import build

    return build


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with a really pretrained model (`deit-clip`) and 500 photos (`imagenet-photos`); skips without it."""
    if not (SHARED_DATA / "deit-clip").is_dir():
        pytest.skip("needs the pretrained model and the photos in ../shared/data, which are not part of the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def two_tower_file(tmp_path_factory) -> Path:
    """A clipq file with two towers and a tokenizer. Not to be changed: tests work on copies."""
    from checkpoint_helpers import TWO_TOWERS, model, tokenizer_spec

    from clipq.files.checkpoints import write

    path = tmp_path_factory.mktemp("two-towers") / "clip.safetensors"
    write(model(TWO_TOWERS, tokenizer=tokenizer_spec()), path)
    return path
