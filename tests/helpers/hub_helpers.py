"""What the tests of downloads and uploads share: a file on the hub, and Pythons of their own that fetch it."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPO, FILE = "someone/a-model", "model.safetensors"
SMALL = random.Random(0).randbytes(100_000)
LARGE = random.Random(1).randbytes(12 << 20)  # huggingface_hub hands on, and resumes, in steps of 10 MB
STEP = 10 << 20

DOWNLOAD = "import sys; from clipq.zoo import hub; print(hub.download({!r}, {!r}, cache_dir=sys.argv[1]), end='')"
DOWNLOAD = DOWNLOAD.format(REPO, FILE)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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


def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)
