"""A small local server speaking the Hugging Face hub's protocol, with faults on request.

What it speaks, as facts about the hub: `HEAD`/`GET /{repo}/resolve/{revision}/{file}` (a large file redirects to the
storage host, as the real hub does), the model's file list, and what `create_repo` and `upload_folder` need (create,
card check, preupload, LFS batch, upload, commit). Large files are never sent whole in a commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Faults:
    """What goes wrong next; each list is used up from its front, one item per request it applies to."""

    cut_after: list[int] = field(default_factory=list)
    """Bytes of a file to send before the connection is closed."""
    reset_after: list[int] = field(default_factory=list)
    """The same, but the connection is reset (an RST) instead of closed."""
    stall_after: list[int] = field(default_factory=list)
    """Bytes of a file to send before nothing more comes."""
    answer: list[int] = field(default_factory=list)
    """A status to give instead of the file's metadata (HEAD)."""
    answer_get: list[int] = field(default_factory=list)
    """A status to give instead of the file itself."""
    corrupt: bool = False
    """Send files of the right size with a byte flipped."""
    meet: threading.Barrier | None = None
    """Requests for a file's metadata wait for each other here, so that the downloads run at the same time."""
    plain: bool = False
    """Answer without the hub's headers, as a web server or a login page in between does."""
    no_range: bool = False
    """Ignore `Range` and send the whole file with 200, as some proxies do."""


@dataclass
class Repo:
    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit hash -> path -> contents."""
    branches: dict[str, str] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    private: bool = False

    def files(self, revision: str) -> dict[str, bytes] | None:
        return self.revisions.get(self.branches.get(revision, revision))

    def commit(self, changes: dict[str, bytes], branch: str = "main") -> str:
        files = {**(self.files(branch) or {}), **changes}
        names = [f"{path}:{hashlib.sha256(data).hexdigest()}" for path, data in sorted(files.items())]
        commit = hashlib.sha1("\n".join([*names, str(len(self.revisions))]).encode()).hexdigest()
        self.revisions[commit] = files
        self.branches[branch] = commit
        return commit


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    range: str = ""
    token: str = ""


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


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        self._dispatch()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: `hub.seen` has the requests."""

    def _dispatch(self) -> None:
        path = unquote(urlsplit(self.path).path)
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size) if size else self._chunks()
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.server_hub.seen.append(Seen(self.command, path, self.headers.get("Range") or "", token))
        for method, pattern, action in _ROUTES:
            if (self.command in method) and (match := re.fullmatch(pattern, path)):
                action(self, **match.groupdict())
                return
        self._fail(404, "", f"no route for {self.command} {path}")

    def _chunks(self) -> bytes:
        data = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return data

    # -- answers ---------------------------------------------------------------------------------------------------

    def _head(self, status: int, headers: dict[str, object]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, str(value))
        self.end_headers()

    def _json(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": len(data)})
        self.wfile.write(data)

    def _fail(self, status: int, code: str, message: str) -> None:
        self._head(status, {"X-Error-Code": code, "X-Error-Message": message, "Content-Length": 0})

    def _repo(self, repo: str) -> Repo | None:
        """The repository, if it exists and the caller may see it; otherwise the answer is given and None returned."""
        found = self.server_hub.repos.get(repo)
        if found is None or (found.private and self.headers.get("Authorization") != "Bearer secret"):
            self._fail(401, "RepoNotFound", "Repository not found")
            return None
        return found

    # -- files -----------------------------------------------------------------------------------------------------

    def resolve(self, repo: str, revision: str, path: str) -> None:
        faults, found = self.server_hub.faults, self._repo(repo)
        if found is None:
            return
        if self.command == "HEAD" and faults.meet is not None:
            faults.meet.wait(30)
        if self.command == "HEAD" and faults.answer:
            self._fail(faults.answer.pop(0), "", "on request")
            return
        files = found.files(revision)
        if files is None:
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        if faults.plain:
            self._head(200, {"Content-Length": 0})
            return
        commit = found.branches.get(revision, revision)
        if path not in files:
            self._head(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit, "Content-Length": 0})
            return
        data = files[path]
        if path not in found.large:
            self._contents(data, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
            return
        digest = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": len(data)}
        place = f"{self.server_hub.storage_url}/storage/{digest}"
        self._head(302, {**headers, "Location": place, "Content-Length": 0})

    def storage(self, digest: str) -> None:
        if digest not in self.server_hub.blobs:
            self._fail(404, "", "no such blob")
            return
        self._contents(self.server_hub.blobs[digest], {"ETag": f'"{digest}"'})

    def _contents(self, data: bytes, headers: dict[str, object]) -> None:
        faults = self.server_hub.faults
        if self.command == "GET" and faults.answer_get:
            self._fail(faults.answer_get.pop(0), "", "on request")
            return
        if faults.corrupt:
            data = bytes([data[0] ^ 1]) + data[1:]
        start, status = 0, 200
        if (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")) and not faults.no_range:
            start, status = int(match[1]), 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self._head(status, {**headers, "Accept-Ranges": "bytes", "Content-Length": len(data) - start})
        if self.command == "GET":
            self._send(data[start:])

    def _send(self, data: bytes) -> None:
        faults = self.server_hub.faults
        ends = ((faults.cut_after, None), (faults.reset_after, self._reset), (faults.stall_after, self._stall))
        limits, end = next(((limits, end) for limits, end in ends if limits), ([len(data)], None))
        self.wfile.write(data[: limits.pop(0)])
        self.wfile.flush()
        if end is not None:
            end()

    def _reset(self) -> None:
        time.sleep(0.1)  # let the client read what was sent: a reset throws away what it has not read yet
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionResetError

    def _stall(self) -> None:
        self.server_hub.stopping.wait(5)

    # -- model information and uploads -----------------------------------------------------------------------------

    def info(self, repo: str, revision: str = "main") -> None:
        if (found := self._repo(repo)) is None:
            return
        if (files := found.files(revision)) is None:
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        siblings = [{"rfilename": path} for path in sorted(files)]
        self._json({"id": repo, "sha": found.branches.get(revision, revision), "siblings": siblings, "tags": []})

    def create(self) -> None:
        wanted = json.loads(self.body)
        if self.headers.get("Authorization") != "Bearer secret":
            self._fail(401, "", "Invalid credentials in Authorization header")
            return
        name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
        exists = name in self.server_hub.repos
        repo = self.server_hub.repos.setdefault(name, Repo(private=wanted.get("visibility") == "private"))
        if not exists:
            repo.commit({})
        self._json({"url": f"{self.server_hub.url}/{name}", "name": name}, 409 if exists else 200)

    def check_card(self) -> None:
        card = json.loads(self.body)["content"]
        bad = not re.match(r"---\n.*?\n---\n", card, re.DOTALL)
        self._json({"errors": [{"message": "no metadata"}] if bad else [], "warnings": []}, 400 if bad else 200)

    def preupload(self, repo: str, revision: str) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": modes})

    def batch(self, repo: str) -> None:
        objects = []
        for item in json.loads(self.body)["objects"]:
            href = f"{self.server_hub.storage_url}/storage/{item['oid']}"
            known = item["oid"] in self.server_hub.blobs
            objects.append({**item, **({} if known else {"actions": {"upload": {"href": href}}})})
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, digest: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != digest:
            self._fail(400, "", "not the promised contents")
            return
        self.server_hub.blobs[digest] = self.body
        self._head(200, {"Content-Length": 0})

    def commit(self, repo: str, revision: str) -> None:
        if (found := self._repo(repo)) is None:
            return
        changes = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                changes[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "lfsFile":
                changes[item["value"]["path"]] = self.server_hub.blobs[item["value"]["oid"]]
                found.large.add(item["value"]["path"])
        commit = found.commit(changes, revision)
        self._json({"commitUrl": f"{self.server_hub.url}/{repo}/commit/{commit}", "commitOid": commit})


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
