"""What the local hub holds and what it was asked; which faults are to happen next."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field


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
