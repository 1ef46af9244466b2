"""Files out of Debian packages and Python wheels, without installing them."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from clipq.errors import DataError

_COMPRESSED, _FOLDER, _ZSTD = 1, 2, 4  # flags of an entry of Qt's resource files


def unpacked(name: str, package: Mapping[str, str], cache: Path) -> Path:
    """The folder that package `name` was unpacked into, fetched with apt-get or pip where `cache` does not hold it.

    A package file that lies in `cache` is taken as it is: whoever has no Debian at hand puts the files there.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / "unpacked" / name
    if folder.is_dir():
        return folder
    is_deb = package["kind"] == "deb"
    pattern = f"{name}_*.deb" if is_deb else f"{name.replace('-', '_')}-*.whl"
    if not list(cache.glob(pattern)):
        (_fetch_deb if is_deb else _fetch_wheel)(name, package, cache)
    file = sorted(cache.glob(pattern))[0]
    partial = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if is_deb:
        _run("dpkg-deb", "-x", file, partial)
    else:
        zipfile.ZipFile(file).extractall(partial)
    return partial.rename(folder)


def file_in(folder: Path, path: str) -> bytes:
    """The bytes of a file of an unpacked package; `archive.rcc:/inner/path` is a file inside Qt's resource archive."""
    outer, _, inner = path.partition(":/")
    data = (folder / outer).read_bytes()
    return qt_resource(data, inner) if inner else data


def qt_resource(data: bytes, path: str) -> bytes:
    """One file of a Qt resource archive (`.rcc`): a header, a tree of entries, their names (utf-16), their bytes."""
    if data[:4] != b"qres":
        raise DataError(f"these bytes are not a Qt resource archive: they start with {data[:4]!r}")
    version, tree, contents, names = struct.unpack_from(">4I", data, 4)
    size = 22 if version >= 2 else 14  # since version 2 entries end with a date
    entry = tree
    for part in path.split("/"):
        count, first = struct.unpack_from(">2I", data, entry + 6)
        children = [tree + size * (first + index) for index in range(count)]
        found = [child for child in children if _entry_name(data, names, child) == part]
        if not found:
            raise DataError(f"there is no {part!r} of {path!r} in the Qt resource archive")
        entry = found[0]
    return _entry_bytes(data, contents, entry, path)


def _entry_name(data: bytes, names: int, entry: int) -> str:
    start = names + struct.unpack_from(">I", data, entry)[0]
    (length,) = struct.unpack_from(">H", data, start)  # in utf-16 units; a hash of four bytes follows
    return data[start + 6 : start + 6 + 2 * length].decode("utf-16-be")


def _entry_bytes(data: bytes, contents: int, entry: int, path: str) -> bytes:
    (flags,) = struct.unpack_from(">H", data, entry + 4)
    if flags & (_FOLDER | _ZSTD):
        raise DataError(f"{path!r} of the Qt resource archive is a folder, or compressed with zstd")
    start = contents + struct.unpack_from(">I", data, entry + 10)[0]
    (length,) = struct.unpack_from(">I", data, start)
    found = data[start + 4 : start + 4 + length]
    return zlib.decompress(found[4:]) if flags & _COMPRESSED else found  # four bytes of length go before zlib's


def _fetch_deb(name: str, package: Mapping[str, str], cache: Path) -> None:
    """`apt-get download` from the suite that has the package, whatever suite this machine is on.

    The mirror is this machine's own; lists and settings are kept apart from the machine's.
    """
    state = cache / "apt"
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    sites = _run("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages").split()
    mirrors = [site for site in sites if site.endswith("/debian")]
    if not mirrors:
        needed = f"{name}_*.deb of Debian {package['suite']}"
        raise DataError(f"this machine's apt knows no Debian mirror; put {needed} into {cache}")
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = state / "sources.list"
    sources.write_text(f"deb [signed-by={keys}] {mirrors[0]} {package['suite']} main\n", encoding="utf-8")
    places = {"Etc::SourceList": sources, "Etc::SourceParts": "-", "State::Lists": state / "lists", "Cache": state}
    own = [word for key, place in places.items() for word in ("-o", f"Dir::{key}={place}")]
    _run("apt-get", *own, "update", "-qq")
    _run("apt-get", *own, "download", "-qq", name, cwd=cache)


def _fetch_wheel(name: str, package: Mapping[str, str], cache: Path) -> None:
    wanted = f"{name}=={package['version']}"
    _run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", cache, wanted)


def _run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise DataError(f"{' '.join(map(str, command))} failed: {done.stderr.strip()[-500:]}")
    return done.stdout
