"""A task's data from the hub: against a local server that speaks the hub's protocol for data sets."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from picture_helpers import COLOURS, colour_tar

from clipq.errors import DataError
from clipq.evaluation.data import task_images
from clipq.evaluation.tasks import HubSource, Task

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/colours"


class _Handler(BaseHTTPRequestHandler):
    """One data set, at one commit that `main` names: its commit, its list of files, and the files."""

    files: dict[str, bytes] = {}
    fetched: list[str] = []

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        file = path.removeprefix(f"/datasets/{REPO}/resolve/{COMMIT}/")
        if path.startswith(f"/api/datasets/{REPO}/revision/"):
            self._send(json.dumps({"id": REPO, "sha": COMMIT, "siblings": []}).encode())
        elif path.startswith(f"/api/datasets/{REPO}/tree/{COMMIT}"):
            tree = [{"type": "file", "path": p, "size": len(d), "oid": str(hash(d))} for p, d in self.files.items()]
            self._send(json.dumps(tree).encode())
        elif file in self.files:
            self.fetched.append(file)
            self._send(self.files[file])
        else:
            self._send(b"", 404)

    do_HEAD = do_GET

    def _send(self, data: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{abs(hash(data)):x}"')
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The handler's `files` and `fetched`; huggingface_hub talks to it and caches in the test's folder."""
    import huggingface_hub

    class Handler(_Handler):
        files, fetched = {}, []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.block_on_close = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    snapshot_download = huggingface_hub.snapshot_download

    def local(*args, **options):
        return snapshot_download(*args, **options, endpoint=url, cache_dir=tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", local)
    yield Handler
    server.shutdown()
    thread.join()
    server.server_close()


def a_task(repo: str = REPO, files: str = "test/*.tar") -> Task:
    source = HubSource(repo, "main", files)
    return Task("t", 1, "t", "hub", ("a {c}",), classnames=tuple(COLOURS), hub=source)


def test_only_the_split_is_fetched_and_the_commit_is_noted(hub, tmp_path):
    tar = colour_tar(tmp_path / "0.tar").read_bytes()
    hub.files |= {"test/0.tar": tar, "test/1.tar": tar, "train/0.tar": b"large", "README.md": b"#"}
    images = task_images(a_task())
    assert len(images) == 24 and images.layout == f"hub: {REPO} at {COMMIT}"
    assert set(hub.fetched) == {"test/0.tar", "test/1.tar"}
    count = len(hub.fetched)
    assert task_images(a_task()).digest() == images.digest() and len(hub.fetched) == count  # cached
    local = task_images(a_task(), tmp_path / "cache" / f"datasets--{REPO.replace('/', '--')}" / "snapshots" / COMMIT)
    assert local.digest() == images.digest()  # what was downloaded is a folder like any other


def test_a_repository_or_split_that_is_not_there_is_an_error_that_names_it(hub):
    with pytest.raises(DataError, match=r"cannot fetch someone/else \(revision main\).*hf auth login"):
        task_images(a_task(repo="someone/else"))
    hub.files |= {"README.md": b"#"}
    with pytest.raises(DataError, match=r"someone/colours at main has no files 'test/\*\.tar'"):
        task_images(a_task())
