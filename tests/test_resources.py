"""How files are written: complete or not at all, and what a killed write leaves behind goes away."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from clipq.resources import STALE_HOURS, atomic_path

KILLED = """
import os, signal, sys
from clipq.resources import atomic_path
with atomic_path(sys.argv[1]) as path:
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def write(target, contents=b"whole"):
    with atomic_path(target) as path:
        path.write_bytes(contents)


def age(path, hours):
    os.utime(path, (time.time() - hours * 3600,) * 2)


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path):
    target = tmp_path / "model[1].safetensors"
    subprocess.run([sys.executable, "-c", KILLED, target], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".part")
    write(target)
    assert sorted(tmp_path.iterdir()) == sorted([left, target])  # it may be another process's that is still at it
    age(left, STALE_HOURS + 1)
    write(target)
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_a_killed_process_left_goes_too(tmp_path):
    folder = tmp_path / ".model.abcd1234.part"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    age(folder, STALE_HOURS + 1)
    write(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_nothing_else_is_removed(tmp_path):
    others = [".model.x.part", "model.abcd1234.part", ".other.abcd1234.part", ".model.abcd1234.part.txt", "mine"]
    for name in others:
        (tmp_path / name).write_text("mine")
        age(tmp_path / name, 10 * STALE_HOURS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("mine")
    (tmp_path / ".model.abcd5678.part").symlink_to(elsewhere)
    write(tmp_path / "model")
    assert all((tmp_path / name).read_text() == "mine" for name in others)
    assert (elsewhere / "kept").read_text() == "mine"


def test_two_at_once_both_end_whole(tmp_path):
    target = tmp_path / "model"
    with atomic_path(target) as one:
        one.write_bytes(b"one")
        write(target, b"two")
        assert target.read_bytes() == b"two"
    assert target.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [target]
