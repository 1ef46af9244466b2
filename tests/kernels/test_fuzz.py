"""The C++ tests of csrc/test/ with few cases; scripts/building/fuzz_native.py runs many, and under the sanitizers."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILERS = ("g++", "clang++", "c++")
COMPILER = next((name for name in COMPILERS if shutil.which(name)), None)
SAYS = {
    "test_arguments": "arguments: ",
    "test_abi": "C ABI on path 0: 60 cases",
    "test_blocks": "stacks on path 0: 60 cases",
    "test_ends": "ends of emulated avx512_vnni: 60 cases",
    "test_kernels": "emulated avx512_vnni: 60 cases",
    "test_steps": "steps of emulated avx512_vnni: 60 cases",
    "test_threads": "threads of portable: 1 cases",
}

pytestmark = pytest.mark.skipif(COMPILER is None, reason=f"no C++ compiler on the PATH ({', '.join(COMPILERS)})")


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> dict[str, Path]:
    build = runpy.run_path(str(ROOT / "scripts" / "building" / "fuzz_native.py"))["build"]
    built = build(tmp_path_factory.mktemp("fuzz"), [COMPILER], ["-O0", "-Werror", "-Wno-psabi"])
    return {program.name: program for program in built}


def test_every_program_is_listed(programs):
    assert set(programs) == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_the_kernels_equal_their_definitions(programs, name):
    done = subprocess.run([programs[name], "60", "1000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAYS[name] in done.stdout
