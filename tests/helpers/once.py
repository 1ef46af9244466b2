"""Folders that one process of a test run makes for all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name`, which `make(folder)` filled in the process that asked first; the others wait for it.

    Session fixtures are made by each of xdist's processes anew, which takes too long where a compiler runs or a graph
    is traced. Not to be changed by a test: it is everybody's.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = folder.with_name(f"{name}.making")
            shutil.rmtree(making, ignore_errors=True)  # of a process that failed
            making.mkdir()
            make(making)
            making.rename(folder)
    return folder
