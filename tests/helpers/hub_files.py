"""Files of the local hub, whole or in part, with the faults that were asked for."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import time

from hub_answers import Answers


class Files(Answers):
    """`resolve` of a repository's file, and the storage host that large files are redirected to."""

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
