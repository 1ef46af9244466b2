"""What a client asks the local hub about a repository, and how it uploads to one: LFS for large files, a commit."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from hub_answers import Answers
from hub_state import Repo


class Uploads(Answers):
    """A repository's file list, its creation, and the steps of `upload_folder`."""

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
