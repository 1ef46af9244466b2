"""Where the data that ships with clipq lies, and how clipq writes files."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import ClipqError, OutputError

_PACKAGE = Path(__file__).resolve().parent

STALE_HOURS = 6
"""How old what a write left beside its target must be to count as left by a killed process; a write takes seconds."""


def resource(*parts: str) -> Path:
    """The path of a file of `zoo/` or `eval/`, such as `resource("zoo", "models.toml")`.

    The wheel carries them under `clipq/data/`; a checkout (editable install) has them beside the package.
    Raises `ClipqError` if neither has it.
    """
    for path in _places(parts):
        if path.exists():
            return path
    raise ClipqError(f"{'/'.join(parts)} is missing from this installation of clipq; reinstall it.")


def has_resource(*parts: str) -> bool:
    """Whether this installation has the file: that of clipq-runtime alone has few."""
    return any(path.exists() for path in _places(parts))


def _places(parts: tuple[str, ...]) -> list[Path]:
    return [root.joinpath(*parts) for root in (_PACKAGE / "data", _PACKAGE.parent)]


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/clipq`, else `~/.cache/clipq` (the XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clipq"


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it into place on success, remove it on any error.

    Whatever happens, `target` is either as it was before or complete; two processes writing it at once
    each write their own temporary file, and the last rename wins. What a killed process left half-written is removed
    by the next one that writes the same target, some hours later.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(target)
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


def remove_stale(target: Path) -> None:
    """Remove the temporary files and folders of `target` that nobody has written to for `STALE_HOURS`.

    Whether the process that made one still runs cannot be told where folders are shared between machines; its age can.
    """
    ours = re.compile(rf"\.{re.escape(target.name)}\.\w{{8}}\.part")
    with suppress(OSError):
        left = [entry for entry in os.scandir(target.parent) if ours.fullmatch(entry.name)]
        for entry in left:
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_HOURS * 3600:
                _remove(Path(entry.path))


def _remove(path: Path) -> None:
    with suppress(OSError):  # another process was faster, or it is not ours
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def check_output_folder(folder: str | os.PathLike[str]) -> None:
    """`check_output_path` for a folder that is there and takes files, or that can be made."""
    folder = Path(folder)
    if folder.is_file():
        raise OutputError(f"cannot write into {folder}: that is no folder. Give the name of one, or of none yet.")
    check_output_path(folder / f".{os.getpid()}" if folder.is_dir() else folder)


@contextmanager
def output_path(target: str | os.PathLike[str], then: str = "") -> Iterator[Path]:
    """`atomic_path` for what a user asked for: a failed write is one `OutputError`, which `then` goes on to explain."""
    try:
        with atomic_path(target) as temporary:
            yield temporary
    except Exception as error:
        if not _is_failed_write(error):
            raise
        raise unwritten(target, error, then) from error


@contextmanager
def output_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a folder beside `target` to be filled; it is renamed into place on success, removed on any error.

    `target` must not exist yet, or be an empty folder. Raises `OutputError`, before the work where that can be told.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"cannot write {target}: it exists already and is no empty folder. Give another one.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(target)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise unwritten(target, error) from error
    try:
        yield beside
        beside.chmod(0o777 & ~_umask())
        os.replace(beside, target)
    except Exception as error:
        if not _is_failed_write(error):
            raise
        raise unwritten(target, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def json_text(value: Mapping[str, Any]) -> str:
    """The text of a small JSON file that people read: indented, its keys in order."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def unwritten(target: str | os.PathLike[str], error: Exception, then: str = "") -> OutputError:
    """The error for a write to `target` that failed with `error`."""
    found = re.search(r"I/O error: (.+) \(os error \d+\)", str(error))  # as safetensors says it
    reason = found[1] if found else getattr(error, "strerror", None) or str(error).rstrip(".")
    return OutputError(f"cannot write {os.fspath(target)}: {reason}. {then or 'Make room, or write somewhere else.'}")


def _is_failed_write(error: Exception) -> bool:
    safetensors = sys.modules.get("safetensors")  # whatever raised its error has imported it
    if safetensors is not None and isinstance(error, safetensors.SafetensorError):
        return True
    return isinstance(error, OSError) and not isinstance(error, ClipqError)


def check_output_path(target: str | os.PathLike[str]) -> None:
    """Raise `OutputError` if a file `target` cannot be written, by trying: work of hours must not end in that.

    Its folder has to exist (a name mistyped makes no folder) and to take a new file; what is in its place already
    has to be a plain file.
    """
    target = Path(target)
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: there is no folder {target.parent}. Make it, or correct the name.")
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "a device or a fifo"
        raise OutputError(f"cannot write {target}: that is {kind}. Give the name of a file.")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
        Path(name).unlink()
    except OSError as error:
        raise unwritten(target, error, "Write somewhere else.") from error


def append_line(target: str | os.PathLike[str], line: str) -> None:
    """Add a line to a file (made if need be, with its folder), all of it or none. Raises `OutputError`."""
    target, content = Path(target), (line + "\n").encode()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        raise unwritten(target, error) from error
    before, done = os.fstat(handle).st_size, 0
    try:
        while done < len(content):  # one write, but where the disk is full: that takes a part and fails at the next
            done += os.write(handle, content[done:])
    except OSError as error:
        if done and os.fstat(handle).st_size == before + done:  # nobody else has added anything
            os.ftruncate(handle, before)
        raise unwritten(target, error) from error
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
