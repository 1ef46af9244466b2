"""Downloads and uploads against a real server that speaks the hub's protocol, in sickness and in health."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import HubServer

from clipq.errors import ClipqError, DownloadError
from clipq.zoo import hub

ROOT = Path(__file__).resolve().parents[2]
REPO, FILE = "someone/a-model", "model.safetensors"
SMALL = random.Random(0).randbytes(100_000)
MINE = random.Random(2).randbytes(100_000)
LARGE = random.Random(1).randbytes(12 << 20)  # huggingface_hub hands on, and resumes, in steps of 10 MB
STEP = 10 << 20


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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


def files_in(folder: Path) -> list[Path]:
    """Regular files with contents; huggingface_hub's locks and notes to itself are not contents."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in found if path.parent.name == "blobs" or ".incomplete" in path.name]


def run(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own. Its deprecation warnings and the like are errors here too."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


DOWNLOAD = "import sys; from clipq.zoo import hub; print(hub.download({!r}, {!r}, cache_dir=sys.argv[1]), end='')"
DOWNLOAD = DOWNLOAD.format(REPO, FILE)


# -- health --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [True, False], ids=["storage host", "plain file"])
def test_a_file_arrives_whole(server, get, large):
    server.add(REPO, "config.json", b'{"a": 1}', large=large)
    path = get(filename="config.json", sha256=sha256(b'{"a": 1}'))
    assert path.read_bytes() == b'{"a": 1}'
    assert path.name == "config.json"


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


def test_the_token_does_not_go_to_the_storage_host(server, tmp_path):
    server.repos[REPO].private = True
    done = run(DOWNLOAD, tmp_path, HF_ENDPOINT=server.url, HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    assert {(seen.method, seen.token) for seen in server.seen} == {("HEAD", "secret"), ("GET", "")}


# -- the connection breaks -----------------------------------------------------------------------------------------


def test_a_download_cut_off_mid_file_is_resumed(server, get, impatient):
    server.add(REPO, FILE, LARGE)
    server.faults.cut_after = [STEP + 1000]
    path = get(sha256=sha256(LARGE))
    assert path.read_bytes() == LARGE
    assert [seen.range for seen in server.gets()] == ["", f"bytes={STEP}-"]


def test_a_server_that_ignores_ranges_is_started_over(server, get, impatient):
    server.add(REPO, FILE, LARGE)
    server.faults.cut_after, server.faults.no_range = [STEP + 1000], True
    assert get(sha256=sha256(LARGE)).read_bytes() == LARGE
    assert len(server.gets()) == 2


@pytest.mark.parametrize(
    "fault", [{"cut_after": [500, 0]}, {"reset_after": [500, 0]}, {"answer_get": [503, 500]}, {"answer": [503, 503]}]
)
def test_passing_failures_are_survived(server, get, impatient, fault):
    vars(server.faults).update(fault)
    assert get(sha256=sha256(SMALL)).read_bytes() == SMALL
    assert not any(fault.values()), "not every fault was met"
    assert impatient, "there was no pause between the attempts"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"cut_after": [10] * 99}, "connection to .* failed"),
        ({"reset_after": [10] * 99}, "connection to .* failed"),
        ({"answer_get": [503] * 99}, "answered with status 503"),
        ({"answer": [500] * 99}, "answered with status 500"),
        ({"answer": [403] * 99}, "refused access .403."),
    ],
)
def test_lasting_failures_end_in_an_error_and_leave_nothing(server, get, tmp_path, impatient, fault, said):
    vars(server.faults).update(fault)
    with pytest.raises(DownloadError, match=f"could not download {FILE} of {REPO}.*{said}"):
        get()
    assert files_in(tmp_path) == []


def test_a_server_that_falls_silent_is_given_up_on(server, get, tmp_path, impatient, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    server.faults.stall_after = [1000] * 99
    with pytest.raises(DownloadError, match="ReadTimeout"):
        get()
    assert files_in(tmp_path) == []


def test_no_connection_and_no_copy(server, get, impatient):
    server.stop()
    with pytest.raises(DownloadError, match="connection to .* failed .*HF_ENDPOINT"):
        get(sha256=sha256(SMALL))


# -- the wrong thing arrives ---------------------------------------------------------------------------------------


def test_wrong_contents_are_refused_and_removed(server, get, tmp_path):
    server.faults.corrupt = True
    with pytest.raises(DownloadError, match=f"{FILE} of {REPO}.*expected sha256 {sha256(SMALL)}, got [0-9a-f]{{64}}"):
        get(sha256=sha256(SMALL))
    assert files_in(tmp_path) == []
    server.faults.corrupt = False
    assert get(sha256=sha256(SMALL)).read_bytes() == SMALL


def test_a_copy_damaged_on_disk_is_fetched_again(server, get):
    path = get(sha256=sha256(SMALL))
    path.write_bytes(SMALL[:-1])
    assert get(sha256=sha256(SMALL)).read_bytes() == SMALL


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"repo": "someone/nothing"}, "no such repository"),
        ({"repo": "not a name"}, "not a repository name"),
        ({"filename": "model.safetensor"}, "no such file.*Did you mean 'model.safetensors'"),
        ({"revision": "v9"}, "no revision 'v9'"),
    ],
)
def test_what_does_not_exist_is_named(get, wanted, said):
    with pytest.raises(DownloadError, match=said):
        get(**wanted)


def test_a_server_that_is_not_a_hub(server, get):
    server.faults.plain = True
    with pytest.raises(DownloadError, match="does not answer like a hub"):
        get()


# -- the cache -----------------------------------------------------------------------------------------------------


def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)


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


# -- uploads -------------------------------------------------------------------------------------------------------


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
