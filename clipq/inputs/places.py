"""Files by path or by URL: what is not on this machine is read through fsspec (s3://, gs://, hf://, https://, ...)."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ..errors import DataError, MissingPackageError, SourceError, first_line
from .images import MAX_BYTES, read_file


def is_remote(source: object) -> bool:
    """Whether `source` is a URL: a scheme of at least two letters and "://"."""
    return isinstance(source, str) and len(source.partition("://")[0]) > 1 and "://" in source


def read_place(source: str | os.PathLike[str]) -> bytes:
    """The bytes of a plain file, or of what a URL names, of at most 64 MiB. Raises `OSError` or `DataError`."""
    if not is_remote(source):
        return read_file(source)
    with open_place(source) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"more than the {MAX_BYTES} bytes that are read of one picture")
    return content


def open_place(source: str | os.PathLike[str]) -> IO[bytes]:
    """A binary file that can seek. Raises `OSError` where there is none, `MissingPackageError` for a URL's package."""
    if not is_remote(source):
        return Path(source).open("rb")
    system, path = file_system(source)
    return system.open(path, "rb")


def read_part(source: str | os.PathLike[str], start: int, size: int) -> bytes:
    """Some bytes of a file. Of a URL, the file is kept open and read on: parts that follow each other cost little.

    Raises `SourceError` where it cannot be read, or has not so many.
    """
    with reading(source):
        found = _kept(source).read(start, size) if is_remote(source) else _read_part(source, start, size)
        if len(found) != size:
            raise EOFError(f"it ends at byte {start + len(found)}, and {size} bytes were to be read from {start} on")
    return found


NOBODYS_FAULT = (SourceError, MissingPackageError, MemoryError)
"""What is raised while an input is read, and is no reason to leave that input out."""


@contextmanager
def reading(source: str | os.PathLike[str], where: str = "") -> Iterator[None]:
    """What fails in here is a `SourceError` of the file `source`: it holds many inputs, and none is to blame."""
    try:
        yield
    except NOBODYS_FAULT:
        raise
    except Exception as error:  # the border to Arrow and to file systems of every kind
        raise SourceError(
            f"{source} cannot be read{where}: {first_line(error)}. What is finished is kept: give the same command "
            "again once the file is whole and can be reached."
        ) from error


def _read_part(source: str | os.PathLike[str], start: int, size: int) -> bytes:
    with Path(source).open("rb") as file:
        file.seek(start)
        return file.read(size)


class _Kept:
    """A remote file that is kept open, for one thread at a time; after a failure it is opened anew."""

    def __init__(self, source: str):
        self.source, self.lock = source, threading.Lock()
        self.file: IO[bytes] | None = None

    def read(self, start: int, size: int) -> bytes:
        with self.lock:
            try:
                self.file = self.file or open_place(self.source)
                self.file.seek(start)
                return self.file.read(size)
            except BaseException:
                self._close()
                raise

    def close(self) -> None:
        with self.lock:
            self._close()

    def _close(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            with suppress(Exception):
                file.close()


def _kept(source: str) -> _Kept:
    with _lock:
        found = _open.setdefault(source, _Kept(source))
        _open.move_to_end(source)
        old = [_open.popitem(last=False)[1] for _ in range(len(_open) - _MOST_OPEN)]
    for one in old:  # each may be waited for: another thread reads it
        one.close()
    return found


_open: OrderedDict[str, _Kept] = OrderedDict()
_lock = threading.Lock()
_MOST_OPEN = 4


def forget(source: str | os.PathLike[str]) -> None:
    """Open a URL anew the next time it is read: it is listed now, and may be another file than it was."""
    with _lock:
        old = _open.pop(os.fspath(source), None)
    if old is not None:
        old.close()


def stamp_of(source: str | os.PathLike[str]) -> tuple[int, int, int] | None:
    """What tells a file of this machine from the one that was there before; None for a URL. Raises `OSError`."""
    if is_remote(source):
        return None
    found = Path(source).stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def size_of(source: str | os.PathLike[str]) -> int:
    """Bytes of a file."""
    if not is_remote(source):
        return Path(source).stat().st_size
    system, path = file_system(source)
    return int(system.size(path) or 0)


def path_of(source: str) -> str:
    """A URL as far as its path goes: what follows in one of http(s) may be a signature, which is nobody's business."""
    return source.partition("?")[0].partition("#")[0] if source.startswith(("http://", "https://")) else source


def name_of(source: str | os.PathLike[str]) -> str:
    """The last part of a path or URL."""
    return path_of(str(source)).rstrip("/").rpartition("/")[2] if is_remote(source) else Path(source).name


def names_of(sources: Sequence[str]) -> list[str]:
    """What files are called beside each other: by their last parts, or by all parts that are not the same for each."""
    short = [name_of(one) for one in sources]
    if len(set(short)) == len(short):
        return short
    parts = [path_of(one).replace(os.sep, "/").split("/") for one in sources]
    same = len(os.path.commonprefix(parts))
    return ["/".join(one[same:]) for one in parts]


def files_at(source: str | os.PathLike[str], endings: Sequence[str]) -> list[str]:
    """The files of one of `endings` that `source` names, sorted: itself, those in the folder, those of a pattern (*).

    Raises `DataError` for a URL that cannot be listed.
    """
    source = os.fspath(source)
    if not is_remote(source):
        path = Path(source)
        found = path.iterdir() if path.is_dir() else [path] if path.is_file() else _matching(path)
        return sorted(str(one) for one in found if one.suffix in endings and not one.name.startswith("."))
    system, path = file_system(source)
    try:
        if "*" in path_of(path):
            found = system.glob(path)
        else:
            found = system.ls(path, detail=False) if system.isdir(path) else [path]
    except Exception as error:  # the border to file systems of every kind
        raise DataError(f"{source} cannot be listed: {first_line(error)}; correct the URL.") from error
    return sorted(system.unstrip_protocol(one) for one in found if path_of(one).endswith(tuple(endings)))


def _matching(path: Path) -> list[Path]:
    return [*path.parent.glob(path.name)] if "*" in path.name else []


def file_system(source: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path there. Raises `MissingPackageError` or `DataError`."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(source)
    except ImportError as error:
        raise MissingPackageError(f"{source} needs a package that is not installed: {first_line(error)}.") from error
    except Exception as error:  # the border to file systems of every kind
        raise DataError(f"{source} cannot be opened: {first_line(error)}; correct the URL.") from error
