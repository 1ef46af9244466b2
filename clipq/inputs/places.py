"""Files by path or by URL: what is not on this machine is read through fsspec (s3://, gs://, hf://, https://, ...)."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ..errors import DataError, MissingPackageError, first_line
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
    """Some bytes of a file. Of a URL, the file is kept open and read on: parts that follow each other cost little."""
    if not is_remote(source):
        with Path(source).open("rb") as file:
            file.seek(start)
            return file.read(size)
    with _lock:
        if source not in _open:
            while len(_open) >= _MOST_OPEN:
                _open.popitem(last=False)[1].close()
            _open[source] = open_place(source)
        _open[source].seek(start)
        return _open[source].read(size)


_open: OrderedDict[str, IO[bytes]] = OrderedDict()
_lock = threading.Lock()
_MOST_OPEN = 4


def size_of(source: str | os.PathLike[str]) -> int:
    """Bytes of a file."""
    if not is_remote(source):
        return Path(source).stat().st_size
    system, path = file_system(source)
    return int(system.size(path) or 0)


def name_of(source: str | os.PathLike[str]) -> str:
    """The last part of a path or URL."""
    return os.fspath(source).rstrip("/").rpartition("/")[2] if is_remote(source) else Path(source).name


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
        found = system.glob(path) if "*" in path else system.ls(path, detail=False) if system.isdir(path) else [path]
    except Exception as error:  # the border to file systems of every kind
        raise DataError(f"{source} cannot be listed: {first_line(error)}; correct the URL.") from error
    return sorted(system.unstrip_protocol(one) for one in found if one.endswith(tuple(endings)))


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
