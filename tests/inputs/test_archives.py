"""Images in tars: what a wrong, damaged or hostile one is told. Nothing is ever unpacked."""

from __future__ import annotations

import io
import tarfile

import pytest
from picture_helpers import COLOURS, encoded, picture, write_tar

from clipq.errors import DataError
from clipq.inputs.archives import tar_images

PNG = encoded(picture((200, 0, 0), 1))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([], "holds no images"),
        ([("a.json", b"{}")], "holds no images"),
        ([("a.png", PNG)], r"'a\.png' has no label; a member 'a\.cls'"),
        ([("a.cls", b"1")], r"'a\.cls' has no image"),
        ([("a.png", PNG), ("a.cls", b"red")], r"'a\.cls' of .* holds 'red'.*0 to 3"),
        ([("a.png", PNG), ("a.cls", b"")], "holds ''"),
        ([("a.png", PNG), ("a.cls", b"-1")], "holds '-1'"),
        ([("a.png", PNG), ("a.cls", "²".encode())], "a .cls holds the class index"),
        ([("a.png", PNG), ("a.cls", b"4")], r"says class 4, which is out of range: .*0 to 3"),
        ([("a.png", PNG), ("a.cls", b"9" * 5000)], "out of range"),
        ([("a.png", PNG), ("a.jpg", PNG), ("a.cls", b"1")], "two members for one sample"),
        ([("a.png", PNG), ("a.png", PNG), ("a.cls", b"1")], "two members for one sample"),
        ([("", PNG)], "member '' of .* has no name"),
        ([("", b""), ("a.png", PNG), ("a.cls", b"1")], "member '' of .* has no name"),
        ([(".jpg", PNG), (".cls", b"1")], "holds no images"),
        ([("a/.png", PNG), ("..", PNG), ("...", PNG)], "holds no images"),
    ],
)
def test_a_wrong_tar_says_which_member(tmp_path, members, says):
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=says) as error:
        tar_images([path], tuple(COLOURS), str(path))
    assert "x.tar" in str(error.value)


def _linked(path):
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)


def _huge(path):
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a.png")
        member.size = 2**40
        tar.fileobj.write(member.tobuf())


def _cut(path):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        member = tarfile.TarInfo("a.png")
        member.size = 5000
        tar.addfile(member, io.BytesIO(bytes(5000)))
    path.write_bytes(whole.getvalue()[:3000])


def _zipped(path):
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.cls"))


def test_hidden_members_are_left_out_as_hidden_files_are(tmp_path):
    """What macOS packs beside every file."""
    members = [("./._a.jpg", b"resource fork"), ("./a.jpg", PNG), ("./._a.cls", b"x"), ("./a.cls", b"1"), (".jpg", PNG)]
    (entry,) = tar_images([write_tar(tmp_path / "x.tar", members)], tuple(COLOURS), "x.tar").entries
    assert (entry.label, entry.read()) == (1, PNG)


def _nested(path):
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for _ in range(2000):  # each says "the name of what follows", of which the next one is
            member = tarfile.TarInfo("././@LongLink")
            member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1
            tar.addfile(member, io.BytesIO(b"x"))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (_linked, "is a link"),
        (_huge, "claims 1099511627776 bytes"),
        (_cut, r"cut off|unexpected end"),
        (_zipped, "uncompressed tar"),
        (_nested, "uncompressed tar"),
        (lambda path: path.write_bytes(b"no tar at all" * 100), "uncompressed tar"),
        (lambda path: path.write_bytes(b""), "uncompressed tar"),
    ],
)
def test_a_hostile_or_damaged_tar_is_refused(tmp_path, write, says):
    write(tmp_path / "x.tar")
    with pytest.raises(DataError, match=says) as error:
        tar_images([tmp_path / "x.tar"], tuple(COLOURS), "x.tar")
    assert "x.tar" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]  # nothing was unpacked
