"""A picture from bytes, a path or PIL: which way up it is, how wide values become 8 bits, and what is never read."""

from __future__ import annotations

import io
import os
import socket

import numpy as np
import pytest
from picture_helpers import encoded, picture
from PIL import Image, ImageOps

from clipq.errors import DataError
from clipq.inputs.images import MAX_BYTES, FileEntry, decode, decode_upright, read_file, upright


def _rotated(orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    picture((200, 90, 20), orientation, (12, 8)).save(out, kind, exif=exif)
    return out.getvalue()


def _entry(tmp_path, content: bytes) -> FileEntry:
    (tmp_path / "a.png").write_bytes(content)
    return FileEntry(tmp_path / "a.png", "a.png", 0, len(content))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_honoured_once(tmp_path, orientation, kind):
    content = _rotated(orientation, kind)
    with Image.open(io.BytesIO(content)) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")
        found = upright(stored)
    (tmp_path / "photo").write_bytes(content)
    assert found.tobytes() == expected.tobytes() and found.size == ((12, 8) if orientation < 5 else (8, 12))
    for again in (upright(found), decode_upright(content), decode_upright(tmp_path / "photo")):
        assert again.tobytes() == found.tobytes() and again.size == found.size


def test_evaluation_reads_pixels_as_they_are_stored(tmp_path):
    plain = picture((200, 90, 20), 6, (12, 8))
    assert decode(_entry(tmp_path, _rotated(6))).tobytes() == plain.tobytes()


def test_broken_exif_leaves_the_picture_as_it_is():
    plain = picture((1, 2, 3), 0)
    out = io.BytesIO()
    plain.save(out, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_upright(out.getvalue()).tobytes() == plain.tobytes()


def _saved(values: np.ndarray, kind: str) -> bytes:
    return encoded(Image.fromarray(values), kind)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path, kind):
    values = np.array([[0, 256, 257, 32768, 65535]], dtype=np.uint16)
    content = _saved(values, kind)
    for found in (decode_upright(content), decode(_entry(tmp_path, content))):
        assert found.mode == "RGB" and np.asarray(found)[0, :, 0].tolist() == [0, 1, 1, 128, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_without_a_range_are_refused(tmp_path, dtype):
    content = _saved(np.array([[0, 300]], dtype=dtype), "TIFF")
    with pytest.raises(DataError, match=r"the picture: ValueError: pixels of mode [IF] .*8 or 16 bits"):
        decode_upright(content)
    with pytest.raises(ValueError, match="no range"):
        decode(_entry(tmp_path, content))
    with pytest.raises(DataError, match="no range"):
        decode_upright(Image.fromarray(np.array([[0.5]], dtype=np.float32)))


def _strange(folder, kind):
    path = folder / "a.png"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "loop": "a.png", "dangling": "nowhere.png"}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("fifo", "a fifo"),
        ("socket", "a socket"),
        ("folder", "a folder"),
        ("device", "a device"),
        ("loop", "a loop of links"),
        ("dangling", "does not exist"),
    ],
)
def test_what_is_no_plain_file_is_never_read(tmp_path, monkeypatch, kind, says):
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    path = _strange(tmp_path.relative_to(tmp_path), kind)
    with pytest.raises(OSError, match=says):
        read_file(path)
    with pytest.raises(DataError, match=says):
        decode_upright(path)


def test_the_limit_holds_for_what_is_read_and_not_for_what_was_promised(tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(OSError, match="more than the"):
        FileEntry(path, "a.png", 0, 1).read()
    with path.open("wb") as file:
        file.truncate(MAX_BYTES)
    assert len(read_file(path)) == MAX_BYTES


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")  # noqa: PTH110
def test_files_of_proc_say_size_0_and_hold_more():
    assert b"Pid:" in read_file("/proc/self/status") and os.stat("/proc/self/status").st_size == 0  # noqa: PTH116


@pytest.mark.parametrize("content", [b"", b"x", encoded(picture((0, 0, 0), 0))[:60]])
def test_broken_bytes_are_one_kind_of_error(content):
    with pytest.raises(DataError, match="cannot read the picture"):
        decode_upright(content)
