"""Files are written whole or not at all, and what cannot be written is found out by trying."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_helpers import small_files_only

from clipq.errors import OutputError
from clipq.resources import append_line, check_output_folder, check_output_path, output_path


def test_a_place_that_takes_files_is_left_as_it_was(tmp_path):
    (tmp_path / "there").write_text("kept")
    (tmp_path / "folder").mkdir()
    for name in ("new", "there", "folder/new"):
        check_output_path(tmp_path / name)
    for name in ("new", "folder"):
        check_output_folder(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "there"]
    assert (tmp_path / "there").read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("folder", "that is a folder"),
        ("fifo", "a device or a fifo"),
        ("null", "a device or a fifo"),
        ("none/x", "there is no folder"),
        ("file/x", "there is no folder"),
        ("x" * 250, "File name too long"),
    ],
)
def test_a_place_that_takes_no_file(tmp_path, name, says):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OutputError, match=f"cannot write .*{says}"):
        check_output_path(tmp_path / name)


def test_a_folder_that_takes_no_file(tmp_path):
    """/proc is one for everybody, and a folder without the right to write for everybody but root."""
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="cannot write .*Write somewhere else"):
        check_output_path(Path("/proc/self/x") if os.geteuid() == 0 else tmp_path / "x")


def test_a_failed_write_is_one_kind_of_error_and_leaves_what_was_there(tmp_path):
    (tmp_path / "x").write_text("before")
    with pytest.raises(OutputError, match="File too large. Go on later"), small_files_only(1000):  # noqa: SIM117
        with output_path(tmp_path / "x", "Go on later.") as temporary:
            temporary.write_bytes(bytes(5000))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
    with pytest.raises(ZeroDivisionError), output_path(tmp_path / "x"):
        _ = 1 / 0


def test_a_line_is_added_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deeper" / "x.jsonl"
    append_line(path, "one")
    with pytest.raises(OutputError, match="File too large"), small_files_only(1000):
        append_line(path, "x" * 5000)
    append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"
    with pytest.raises(OutputError, match="Is a directory"):
        append_line(tmp_path, "x")
