"""Fixtures shared by all tests: the tiny models of every host, and the real data where it lies beside the project."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _one_seed_one_thread() -> Iterator[None]:
    """The same numbers in every run; one thread, as waking a second one costs more than these models do."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> Callable[[str], nn.Module]:
    """`tiny(name)` builds one of tests/tiny_models.py's models."""
    from tiny_models import build

    return build


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with a really pretrained model (`deit-clip`) and 500 photos (`imagenet-photos`); skips without it."""
    if not (SHARED_DATA / "deit-clip").is_dir():
        pytest.skip("needs the pretrained model and the photos in ../shared/data, which are not part of the project")
    return SHARED_DATA
