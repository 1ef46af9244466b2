"""The native kernels for Arm, compiled here and run under an emulator: right or wrong, nothing about speed."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGET, EMULATOR = "aarch64-linux-gnu", "qemu-aarch64-static"
MISSING = [tool for tool in (f"{TARGET}-g++", EMULATOR) if not shutil.which(tool)]

pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"{' and '.join(MISSING)} not found; on Debian or Ubuntu: apt install g++-{TARGET} qemu-user-static",
)


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> list[Path]:
    """The C++ tests, linked so that the emulator needs nothing else."""
    build = runpy.run_path(str(ROOT / "scripts" / "building" / "fuzz_native.py"))["build"]
    return build(tmp_path_factory.mktemp("arm"), [f"{TARGET}-g++"], ["-O1", "-Werror", "-Wno-psabi", "-static"])


def said_on(processor: str, programs: list[Path]) -> str:
    said = "\n"
    for program in programs:
        command = [EMULATOR, "-cpu", processor, str(program), "20"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        said += done.stdout
    return said


def test_a_processor_with_dot_products_runs_neon_dotprod(programs):
    said = said_on("max", programs)
    assert "\nneon_dotprod: 20 cases\n" in said
    assert "\nsteps of neon_dotprod: 20 cases\n" in said
    assert "\nchosen: path 4\n" in said


def test_a_processor_without_them_runs_the_portable_path(programs):
    said = said_on("cortex-a53", programs)
    assert "\nportable: 20 cases\n" in said
    assert "neon_dotprod" not in said
    assert "\nchosen: path 0\n" in said
