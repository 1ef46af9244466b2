"""How the local hub reads a request and answers it; what is asked for is decided by its routes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hub_state import Repo, Seen

if TYPE_CHECKING:
    from hub_server import HubServer

Routes = tuple[tuple[tuple[str, ...], str, Callable[..., None]], ...]
"""Methods, a pattern that the whole path must match, and the method of the handler that gets its groups."""


class Answers(BaseHTTPRequestHandler):
    """Reads a request, notes it, hands it to the route that fits, and knows how answers look."""

    server_hub: HubServer
    protocol_version = "HTTP/1.1"
    timeout = 10
    routes: Routes = ()

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
        for methods, pattern, action in self.routes:
            if self.command in methods and (match := re.fullmatch(pattern, path)):
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
