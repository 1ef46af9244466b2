"""The cache of downloads: what it spares, what it holds after an accident, and when it cannot be used."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest
from hub_helpers import DOWNLOAD, FILE, LARGE, REPO, SMALL, files_in, run, sha256, start

from clipq.errors import DownloadError
from clipq.zoo import hub


def test_a_cached_file_with_a_known_hash_needs_no_request(server, get):
    first = get(sha256=sha256(SMALL))
    asked = len(server.seen)
    assert get(sha256=sha256(SMALL)) == first
    assert len(server.seen) == asked


def test_a_branch_without_a_hash_follows_the_hub(server, get):
    old = get()
    server.add(REPO, FILE, b"newer")
    assert get().read_bytes() == b"newer"
    assert old.read_bytes() == SMALL


def test_a_commit_is_pinned(server, get):
    commit = server.repos[REPO].branches["main"]
    server.add(REPO, FILE, b"newer")
    assert get(revision=commit).read_bytes() == SMALL


def test_a_new_hash_replaces_an_older_cached_file(server, get):
    """The registry moved on: the cached file of the branch is not what is asked for, and not damaged either."""
    old = get(sha256=sha256(SMALL))
    server.add(REPO, FILE, b"newer")
    assert get(sha256=sha256(b"newer")).read_bytes() == b"newer"
    assert old.read_bytes() == SMALL


@pytest.mark.parametrize("hashed", [True, False], ids=["with hash", "without hash"])
def test_works_from_the_cache_when_the_server_is_gone(server, get, hashed):
    digest = sha256(SMALL) if hashed else ""
    get(sha256=digest)
    server.stop()
    assert get(sha256=digest).read_bytes() == SMALL


@pytest.mark.parametrize("contents", [SMALL[:-1], b"", bytes(len(SMALL))], ids=["cut off", "empty", "zeros"])
def test_a_copy_damaged_on_disk_is_fetched_again_and_says_so(server, get, capsys, contents):
    path = get(sha256=sha256(SMALL))
    assert capsys.readouterr().err == ""
    path.write_bytes(contents)
    assert get(sha256=sha256(SMALL)).read_bytes() == SMALL
    assert capsys.readouterr().err == f"clipq: the cached file {path} is damaged; it is removed and downloaded again\n"


def test_two_processes_at_once_get_one_file(server, tmp_path):
    server.add(REPO, FILE, LARGE)
    server.faults.meet = threading.Barrier(2)
    running = [start(DOWNLOAD, tmp_path, HF_ENDPOINT=server.url) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    paths = {path for path, _ in outputs}
    assert [Path(path).read_bytes() for path in paths] == [LARGE]
    assert [path.read_bytes() for path in files_in(tmp_path)] == [LARGE]


def test_a_killed_process_leaves_no_half_file_behind(server, get, tmp_path):
    server.faults.stall_after = [1000]
    process = start(DOWNLOAD, tmp_path / "cache", HF_ENDPOINT=server.url)
    while not server.gets() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert [path for path in files_in(tmp_path) if ".incomplete" not in path.name] == []
    assert list(tmp_path.rglob(FILE)) == []
    assert get(sha256=sha256(SMALL)).read_bytes() == SMALL


def test_offline_mode_uses_the_cache_and_says_what_is_missing(server, get, tmp_path):
    get()
    there = run(DOWNLOAD, tmp_path / "cache", HF_HUB_OFFLINE="1")
    assert Path(there.stdout).read_bytes() == SMALL, there.stderr
    missing = run(DOWNLOAD, tmp_path / "empty", HF_HUB_OFFLINE="1")
    assert missing.returncode == 1
    assert "DownloadError" in missing.stderr
    assert "offline mode is on (HF_HUB_OFFLINE) and the file is not cached" in missing.stderr


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match=r"/file.*: Not a directory.*cache_dir="):
        hub.download(REPO, FILE, cache_dir=tmp_path / "file", endpoint=server.url)


WITHOUT_PRIVILEGES = "__import__('ctypes').CDLL(None).capset((c_uint32 * 2)(0x20080522, 0), (c_uint32 * 6)())"
WITHOUT_PRIVILEGES = f"from ctypes import c_uint32; {WITHOUT_PRIVILEGES}; {DOWNLOAD}"
"""Even the superuser is held to file modes once it gives up its capabilities (Linux)."""


@pytest.mark.skipif(sys.platform != "linux", reason="gives up Linux capabilities")
def test_a_read_only_cache_serves_what_it_has(server, get, tmp_path):
    get()
    cache, empty = tmp_path / "cache", tmp_path / "empty"
    empty.mkdir()
    folders = [empty, *(path for path in [cache, *cache.rglob("*")] if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    served = run(WITHOUT_PRIVILEGES, cache, HF_ENDPOINT=server.url)
    refused = run(WITHOUT_PRIVILEGES, empty, HF_ENDPOINT=server.url)
    for folder in folders:
        folder.chmod(0o755)
    assert served.stdout, served.stderr
    assert Path(served.stdout).read_bytes() == SMALL
    message = refused.stderr.splitlines()[-1]
    assert message.startswith("clipq.errors.DownloadError")
    assert f"{empty}/" in message
    assert "Permission denied" in message


FULL = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (50_000, 50_000)); " + DOWNLOAD


def test_a_full_disk_is_reported_and_leaves_nothing(server, tmp_path):
    """A limit on the size of files fails a write in the middle, as a full disk does."""
    done = run(FULL, tmp_path, HF_ENDPOINT=server.url)
    assert "DownloadError" in done.stderr
    assert "writing failed: File too large. Make room" in done.stderr
    assert files_in(tmp_path) == []
