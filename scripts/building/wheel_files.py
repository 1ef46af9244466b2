"""Wheels out of a wheel without a library: some or all of its files, and a native library for one platform.

The format: https://packaging.python.org/specifications/binary-distribution-format/ (a zip file with METADATA, WHEEL and
a RECORD of hashes in its .dist-info folder).
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import time
import zipfile
from collections.abc import Iterable, Mapping
from email.parser import BytesParser
from email.policy import compat32
from pathlib import Path

from clipq.resources import atomic_path

GENERATOR = "clipq (scripts/building/build_wheels.py)"
_SHARED_FIELDS = (
    *("Version", "License-Expression", "License-File", "Keywords", "Classifier", "Requires-Python"),
    *("Author", "Author-email", "Project-URL"),
)
"""Of METADATA: what a part of a package says as the whole one does."""

_DEFAULT_EPOCH = 1580601600  # hatchling's own, where SOURCE_DATE_EPOCH does not say one


def read_wheel(path: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The files of a wheel, and those of its .dist-info folder by their path in it."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    info = {name: data for name, data in files.items() if name.split("/")[0].endswith(".dist-info")}
    rest = {name: data for name, data in files.items() if name not in info}
    return rest, {name.partition("/")[2]: data for name, data in info.items()}


def metadata_of_part(whole: bytes, name: str, about: Mapping[str, object], description: str) -> bytes:
    """METADATA of `name`, which is a part of the package that `whole` is the METADATA of.

    `about`: its "description" (one line) and "dependencies". `description`: Markdown.
    """
    fields = BytesParser(policy=compat32).parsebytes(whole)
    lines = [f"Metadata-Version: {fields['Metadata-Version']}", f"Name: {name}", f"Summary: {about['description']}"]
    lines += [f"{field}: {value}" for field in _SHARED_FIELDS for value in fields.get_all(field, ())]
    lines += [f"Requires-Dist: {requirement}" for requirement in about["dependencies"]]
    lines += ["Description-Content-Type: text/markdown", "", description]
    return "\n".join(lines).encode()


def write_wheel(
    folder: Path, name: str, tags: Iterable[str], files: Mapping[str, bytes], info: Mapping[str, bytes]
) -> Path:
    """Write the wheel `name` (a distribution and its version, as in file names) and return where it is.

    `tags`: its platforms, all of the one library. The same arguments give the same bytes; their time is
    $SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/).
    """
    platforms = sorted(tags)
    root = f"{name}.dist-info"
    info = {**info, "WHEEL": _wheel_text(platforms)}
    info.pop("RECORD", None)
    everything = {**dict(sorted(files.items())), **{f"{root}/{one}": info[one] for one in sorted(info)}}
    everything[f"{root}/RECORD"] = _record(everything, f"{root}/RECORD")
    path = folder / f"{name}-py3-none-{'.'.join(platforms)}.whl"
    when = _time()
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for one, data in everything.items():
            entry = zipfile.ZipInfo(one, when)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3  # Unix: the mode is read
            entry.external_attr = (stat.S_IFREG | (0o755 if one.endswith(".so") else 0o644)) << 16
            archive.writestr(entry, data, compresslevel=9)
    return path


def _wheel_text(platforms: Iterable[str]) -> bytes:
    tags = "".join(f"Tag: py3-none-{platform}\n" for platform in platforms)
    return f"Wheel-Version: 1.0\nGenerator: {GENERATOR}\nRoot-Is-Purelib: false\n{tags}".encode()


def _record(files: Mapping[str, bytes], itself: str) -> bytes:
    def digest(data: bytes) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

    lines = [f"{name},sha256={digest(data)},{len(data)}\n" for name, data in files.items()]
    return "".join([*lines, f"{itself},,\n"]).encode()


def _time() -> tuple[int, int, int, int, int, int]:
    """In UTC; zip files know no year before 1980."""
    moment = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", _DEFAULT_EPOCH)))
    return max(moment[:6], (1980, 1, 1, 0, 0, 0))
