"""A few files of scripts/building/fuzz_files.py, always the same ones; by hand it makes many more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipq.native import library

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "building" / "fuzz_files.py"
SEED = ROOT / "tests" / "data" / "v0.2" / "timm-vision_transformer.safetensors"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="forks")
def test_changed_files_are_read_as_what_they_say_or_refused():
    done = run("--count", "50", "--seed", "3", "--seconds", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("50 files: CheckpointError ")
    assert "read; used" in done.stdout


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="forks")
@pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")
def test_the_runtime_reads_or_refuses_them():
    done = run("--runtime", "--count", "150", "--seed", "3", "--seconds", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CheckpointError" in done.stdout and "read; used" in done.stdout


def test_what_is_found_is_told(tmp_path):
    done = run(str(SEED), "--count", "2", "--seed", "3", "--seconds", "0", "--keep", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.count("FOUND in") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3-0.safetensors", "3-1.safetensors"]
