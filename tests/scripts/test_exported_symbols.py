"""Symbols and needs of shared libraries, read from their files, against the tools of binutils."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "building"))

import build_wheels  # noqa: E402
from exported_symbols import LibraryFormatError, read_library  # noqa: E402

OURS = ROOT / "clipq" / "_native.so"
LIBRARIES = [OURS, *sorted(Path(sysconfig.get_path("platstdlib"), "lib-dynload").glob("*.so"))[:5]]
LIBRARIES = [path for path in LIBRARIES if path.is_file()]


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("nm"), reason="nm reads this system's files"
)
@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.name)
def test_as_binutils_read_them(path):
    library = read_library(path)
    nm = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    symbols = [line.split()[-1].split("@")[0] for line in nm.splitlines() if line.split()[-2] not in "Aau"]
    assert library.exports == set(symbols)
    objdump = subprocess.run(["objdump", "-p", path], capture_output=True, text=True, check=True).stdout
    assert library.needs == tuple(line.split()[1] for line in objdump.splitlines() if line.strip().startswith("NEEDED"))
    assert (library.system, library.architecture) == ("linux", sysconfig.get_platform().split("-", 1)[1])


@pytest.mark.skipif(not OURS.is_file(), reason="the native library is not built: python hatch_build.py")
def test_the_library_has_the_functions_of_the_header():
    assert len(build_wheels.abi_functions()) >= 15
    assert build_wheels.abi_functions() <= read_library(OURS).exports


@pytest.mark.skipif(not OURS.is_file(), reason="the native library is not built: python hatch_build.py")
def test_damaged_files_are_refused_or_read(tmp_path):
    """Never another error than the reader's own."""
    data, path, g = OURS.read_bytes(), tmp_path / "damaged.so", random.Random(0)
    for _ in range(60):
        path.write_bytes(data[: g.randrange(len(data))])
        with pytest.raises(LibraryFormatError, match=r"damaged\.so"):
            read_library(path)


@pytest.mark.parametrize(
    "start", [b"", b"MZ", b"\x7fELF\x02\x01", b"\xcf\xfa\xed\xfe", b"#!/bin/sh\n", b"\x7fELF\x01\x01"]
)
def test_what_is_no_library_is_refused(tmp_path, start):
    path = tmp_path / "file.so"
    for rest in (b"", bytes(64), bytes(range(256)) * 4):
        path.write_bytes(start + rest)
        with pytest.raises(LibraryFormatError, match=r"file\.so"):
            read_library(path)
