"""A small local server speaking the Hugging Face hub's protocol, with faults on request.

What it speaks, as facts about the hub: `HEAD`/`GET /{repo}/resolve/{revision}/{file}` (a large file redirects to the
storage host, as the real hub does), the model's file list, and what `create_repo` and `upload_folder` need (create,
card check, preupload, LFS batch, upload, commit). Large files are never sent whole in a commit.
"""

from __future__ import annotations

import hashlib
import threading
from http.server import ThreadingHTTPServer

from hub_files import Files
from hub_state import Faults, Repo, Seen
from hub_uploads import Uploads


class HubServer:
    """`with HubServer() as hub:` serves at `hub.url` until the block ends; `hub.seen` lists the requests."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults = Faults()
        self.seen: list[Seen] = []
        self.stopping = threading.Event()
        hub = self

        class Handler(_Handler):
            server_hub = hub
            routes = _ROUTES

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage_url(self) -> str:
        """Another origin than `url`, so that clients treat it as the storage host it stands for."""
        return f"http://localhost:{self._server.server_port}"

    def add(self, repo: str, path: str, data: bytes, large: bool = True) -> str:
        """Commit one file to `repo` (made if needed); returns the commit."""
        place = self.repos.setdefault(repo, Repo())
        if large:
            place.large.add(path)
            self.blobs[hashlib.sha256(data).hexdigest()] = data
        return place.commit({path: data})

    def gets(self) -> list[Seen]:
        """Requests for the contents of files, in order."""
        return [seen for seen in self.seen if seen.method == "GET" and "/api/" not in seen.path]

    def stop(self) -> None:
        """Stop serving and close every socket; further requests are refused."""
        self.stopping.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True  # no thread or socket outlives the server

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is part of the tests; anything else is a fault of the server and shown."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(Files, Uploads):
    """All that the hub can be asked."""


_NAME = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES = (
    (("GET", "HEAD"), r"/storage/(?P<digest>[0-9a-f]{64})", _Handler.storage),
    (("PUT",), r"/storage/(?P<digest>[0-9a-f]{64})", _Handler.upload),
    (("GET", "HEAD"), rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    (("GET",), rf"/api/models/{_NAME}/revision/(?P<revision>[^/]+)", _Handler.info),
    (("GET",), rf"/api/models/{_NAME}", _Handler.info),
    (("POST",), r"/api/repos/create", _Handler.create),
    (("POST",), r"/api/validate-yaml", _Handler.check_card),
    (("POST",), rf"/api/models/{_NAME}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (("POST",), rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (("POST",), rf"/api/models/{_NAME}/commit/(?P<revision>[^/]+)", _Handler.commit),
)
