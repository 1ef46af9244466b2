"""Where the data that ships with clipq lies, and how clipq writes files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ClipqError

_PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """The path of a file of `zoo/` or `eval/`, such as `resource("zoo", "models.toml")`.

    The wheel carries them under `clipq/data/`; a checkout (editable install) has them beside the package.
    Raises `ClipqError` if neither has it.
    """
    for root in (_PACKAGE / "data", _PACKAGE.parent):
        if (path := root.joinpath(*parts)).exists():
            return path
    raise ClipqError(f"{'/'.join(parts)} is missing from this installation of clipq; reinstall it.")


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/clipq`, else `~/.cache/clipq` (the XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clipq"


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it into place on success, remove it on any error.

    Whatever happens, `target` is either as it was before or complete; two processes writing it at once
    each write their own temporary file, and the last rename wins.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp and safetensors make 0600; a finished file has the usual rights
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
