"""A local hub with one file on it, and a download from it that need not wait."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from hub_helpers import FILE, REPO, SMALL
from hub_server import HubServer

from clipq.zoo import hub


@pytest.fixture
def server():
    with HubServer() as server:
        server.add(REPO, FILE, SMALL)
        yield server


@pytest.fixture
def get(server, tmp_path):
    """`download` of the file from the server into a cache of this test's own."""

    def get(repo=REPO, filename=FILE, **options):
        return hub.download(repo, filename, cache_dir=tmp_path / "cache", endpoint=server.url, **options)

    return get


@pytest.fixture
def impatient(monkeypatch):
    """Neither clipq nor huggingface_hub waits between attempts."""
    waits: list[float] = []
    quick = SimpleNamespace(**{**vars(time), "sleep": waits.append})
    for module in ("clipq.zoo.hub", "huggingface_hub.file_download", "huggingface_hub.utils._http"):
        monkeypatch.setattr(f"{module}.time", quick)
    return waits
