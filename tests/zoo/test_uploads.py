"""Uploads to a real server that speaks the hub's protocol."""

from __future__ import annotations

import random

import pytest
from hub_helpers import FILE, sha256

from clipq.errors import ClipqError
from clipq.zoo import hub

MINE = random.Random(2).randbytes(100_000)

# huggingface_hub's own way of uploading is deprecated by its HTTP library
old_uploads = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A saved model. The storage protocol spoken here is the hub's older one (LFS), which every hub still takes."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / FILE).write_bytes(MINE)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    return folder


@old_uploads
def test_what_is_pushed_can_be_downloaded(server, get, folder):
    url = hub.push(folder, "me/new", token="secret", private=True, endpoint=server.url)
    repo = server.repos["me/new"]
    assert url == f"{server.url}/me/new/commit/{repo.branches['main']}"
    assert repo.private
    assert repo.files("main") == {FILE: MINE, "README.md": b"---\nlicense: mit\n---\n# A model\n"}
    repo.private = False
    assert get("me/new", sha256=sha256(MINE)).read_bytes() == MINE


@old_uploads
def test_pushing_again_adds_a_commit(server, folder):
    first = hub.push(folder, "me/new", token="secret", endpoint=server.url)
    (folder / FILE).write_bytes(MINE[::-1])
    assert hub.push(folder, "me/new", token="secret", endpoint=server.url) != first
    assert server.repos["me/new"].files("main")[FILE] == MINE[::-1]


def test_a_refused_upload_says_what_to_do(server, folder):
    with pytest.raises(hub.UploadError, match="could not upload .* to me/new.*hf auth login"):
        hub.push(folder, "me/new", token="wrong", endpoint=server.url)
    assert "me/new" not in server.repos


def test_an_empty_folder_is_not_pushed(server, tmp_path):
    with pytest.raises(ClipqError, match="not a folder with files"):
        hub.push(tmp_path, "me/new", token="secret", endpoint=server.url)
    assert server.seen == []
