"""The photos' script: its table and the card that ships agree; cropping, reducing and unpacking are as they say."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from open_clip import IMAGENET_CLASSNAMES
from PIL import Image

from clipq.errors import DataError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "building"))  # scripts/ is no package

import photos  # noqa: E402
from package_files import file_in, qt_resource, unpacked  # noqa: E402

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMES = list(IMAGENET_CLASSNAMES)
TABLE = tomllib.loads(photos.TABLE.read_text(encoding="utf-8"))


def test_the_card_that_ships_is_the_table_s():
    card = photos.card(photos.checked(TABLE, NAMES), TABLE, NAMES)
    assert card == (photos.DATA / "photos.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"licence": "CC-BY-SA-4.0"}, "CC-BY-SA-4.0"),
        ({"class": "giraffe"}, "giraffe"),
        ({"class": "missile"}, "missile"),
    ],
)
def test_a_photo_that_may_not_ship_or_has_no_class_of_its_own_is_refused(change, says):
    table = {"photos": [{"name": "x", "licence": "CC0-1.0", "class": "fig"} | change]}
    with pytest.raises(DataError, match=says):
        photos.checked(table, NAMES)


def encoded(image: Image.Image, kind: str = "PNG", **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ((1200, 400), None, (384, 256)),  # cropped to 3:2 and reduced
        ((400, 1200), None, (256, 384)),
        ((300, 200), None, (300, 200)),  # never enlarged
        ((1200, 400), (0, 0, 300, 300), (256, 256)),
    ],
)
def test_a_picture_is_cropped_and_reduced_and_never_enlarged(size, crop, expected):
    assert photos.photo(encoded(Image.new("RGB", size)), crop).size == expected


def test_what_is_transparent_becomes_white_and_metadata_goes():
    exif = Image.Exif()
    exif[0x010E] = "a description"
    original = encoded(Image.new("RGBA", (300, 300), (0, 0, 0, 0)), exif=exif.tobytes())
    shipped = Image.open(io.BytesIO(photos.jpeg(photos.photo(original))))
    assert shipped.getpixel((9, 9)) == (255, 255, 255) and not shipped.getexif()


def test_a_noisy_picture_gets_the_quality_that_fits():
    noise = Image.effect_noise((384, 256), 90).convert("RGB")
    assert 20_000 < len(photos.jpeg(noise)) <= photos.MAX_BYTES < len(encoded(noise, "JPEG", quality=90))


def archive(content: bytes, flags: int) -> bytes:
    """A Qt resource archive (version 1) of one folder, `in`, with one file, `file`."""
    text = ["", "in", "file"]
    starts = [sum(6 + 2 * len(one) for one in text[:index]) for index in range(3)]
    names = b"".join(struct.pack(">HI", len(one), 0) + one.encode("utf-16-be") for one in text)
    folders = struct.pack(">IHII", starts[0], 2, 1, 1) + struct.pack(">IHII", starts[1], 2, 1, 2)
    tree = folders + struct.pack(">IHHHI", starts[2], flags, 0, 0, 0)
    contents = struct.pack(">I", len(content)) + content
    head = struct.pack(">4sIIII", b"qres", 1, 20, 20 + len(tree), 20 + len(tree) + len(contents))
    return head + tree + contents + names


def test_a_file_is_found_in_a_qt_resource_archive(tmp_path):
    assert qt_resource(archive(b"plain", 0), "in/file") == b"plain"
    packed = struct.pack(">I", 4) + zlib.compress(b"full")
    (tmp_path / "some.rcc").write_bytes(archive(packed, 1))
    assert file_in(tmp_path, "some.rcc:/in/file") == b"full"


@pytest.mark.parametrize(
    ("data", "path", "says"),
    [
        (b"PK\x03\x04", "in/file", "not a Qt resource archive"),
        (archive(b"", 0), "in/other", "no 'other'"),
        (archive(b"", 0), "in", "is a folder"),
        (archive(b"", 4), "in/file", "zstd"),
    ],
)
def test_what_a_qt_resource_archive_does_not_hold_is_an_error(data, path, says):
    with pytest.raises(DataError, match=says):
        qt_resource(data, path)


def test_another_original_than_the_table_s_is_refused(tmp_path):
    """With a wheel in the cache nothing is fetched."""
    with zipfile.ZipFile(tmp_path / "some_pictures-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("a/b.png", b"another picture")
    packages = {"some-pictures": {"kind": "wheel", "version": "2.0"}}
    assert file_in(unpacked("some-pictures", packages["some-pictures"], tmp_path), "a/b.png") == b"another picture"
    entry = {"package": "some-pictures", "file": "a/b.png", "sha256": "0" * 64}
    with pytest.raises(DataError, match=r"not 0{64} of version 2\.0"):
        photos.original(entry, packages, tmp_path)
