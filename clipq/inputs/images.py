"""A list of images with a key and a label each, and how one of them is read and decoded, one at a time."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from .scaling import Smallest

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_BYTES = 64 * 2**20  # no photo is larger; a member that claims to be is refused, not read


class Entry(Protocol):
    """One image, not yet read: `key` names it for the user, the same on every machine."""

    key: str
    label: int
    size: int

    def read(self) -> bytes: ...


@dataclass(frozen=True)
class Images:
    """The images of one evaluation, in a fixed order; `classes` are the names if the data itself names them."""

    entries: tuple[Entry, ...]
    origin: str  # what the user named, for messages
    layout: str = "folder"  # how it was laid out, for the result: no path of anybody's machine
    classes: tuple[str, ...] = ()
    limit: int | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def digest(self) -> str:
        """sha256 over keys, labels and sizes: the same data in another place has the same digest."""
        text = hashlib.sha256()
        for entry in self.entries:
            text.update(f"{entry.key}\0{entry.label}\0{entry.size}\n".encode("utf-8", "surrogateescape"))
        return text.hexdigest()

    def limited(self, limit: int | None) -> Images:
        """At most `limit` images, the same ones every time, spread evenly over the classes, in the old order.

        Each class's images are shuffled by the sha256 of their key; then one of every class is taken, then a second
        of every class, and so on. A limit below the number of classes takes one image each of evenly spaced classes.
        """
        if limit is None:
            return self
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise DataError(f"limit={limit!r} is not a number of images; give a whole number >= 1, or None for all")
        if limit >= len(self):
            return self
        chosen = sorted(_balanced(self.entries, limit))
        return replace(self, entries=tuple(self.entries[i] for i in chosen), limit=limit)


def spread(total: int, wanted: int) -> list[int]:
    """At most `wanted` of `range(total)`, evenly spaced."""
    count = min(total, wanted)
    return [i * total // count for i in range(count)]


def _balanced(entries: Sequence[Entry], limit: int) -> list[int]:
    ranked: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for index, entry in enumerate(entries):
        ranked[entry.label].append((hashlib.sha256(entry.key.encode("utf-8", "surrogateescape")).hexdigest(), index))
    labels = sorted(ranked)
    rounds = sorted((place, label, index) for label in labels for place, (_, index) in enumerate(sorted(ranked[label])))
    last = rounds[limit - 1][0]  # the round that is not taken whole
    taken = [index for place, _, index in rounds if place < last]
    partial = [index for place, _, index in rounds if place == last]
    return taken + [partial[i] for i in spread(len(partial), limit - len(taken))]


@dataclass(frozen=True)
class FileEntry:
    """An image file in a folder. base: the working folder that a relative path is of, where others have other ones."""

    path: Path
    key: str
    label: int
    size: int
    base: str = ""

    def read(self) -> bytes:
        """Raises `OSError`, which names the path as it was given."""
        try:
            return read_file(Path(self.base, self.path))
        except OSError as error:
            if error.filename is not None:
                error.filename = str(self.path)
            raise


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a plain file of at most 64 MiB. Raises `OSError` for a larger file and for a fifo or a device.

    The limit holds for the bytes that come, not for the size that the file says it has: /proc says 0, and files grow.
    """
    if reason := unlike_a_file(path):  # before opening: to open a device may already do something
        raise OSError(reason)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:  # noqa: PTH123 (a descriptor)
        if not stat.S_ISREG(os.fstat(handle).st_mode):  # swapped since it was looked at
            raise OSError("not a plain file")
        if (size := os.fstat(handle).st_size) > MAX_BYTES:
            raise OSError(f"{size} bytes, more than the {MAX_BYTES} that are read of one picture")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"more than the {MAX_BYTES} bytes that are read of one picture")
    return content


def unlike_a_file(path: str | os.PathLike[str]) -> str:
    """Why `path` is nothing to read (a fifo, a device, a dangling link, a loop of links); "" for a plain file."""
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        return _REASONS.get(error.errno, error.strerror or str(error))
    if stat.S_ISREG(mode):
        return ""
    return next((f"{name}, not a plain file" for is_so, name in _KINDS if is_so(mode)), "not a plain file")


_REASONS = {errno.ENOENT: "a link to a file that does not exist", errno.ELOOP: "a loop of links"}
_KINDS = (
    (stat.S_ISFIFO, "a fifo"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a folder"),
)


def decode(entry: Entry, oriented: bool = False, smallest: Smallest | None = None) -> Image:
    """The picture as RGB, as its pixels are stored: evaluations ignore EXIF orientation, as their data sets' code does.

    oriented: the way up that its EXIF orientation says, as photos are looked at. smallest: the least that a JPEG may be
    decoded to, see `scaling.smallest_of`; None: every pixel.
    Raises whatever Pillow raises where it is broken, truncated or a bomb.
    """
    image = _opened(entry.read(), smallest)
    return _turned(image) if oriented else _rgb(image)


def decode_upright(source: bytes | str | os.PathLike[str] | Image, smallest: Smallest | None = None) -> Image:
    """The picture as RGB, the way up that its EXIF orientation says; for photos, from bytes, a path or a PIL image.

    smallest: as for `decode`; a PIL image is taken as it is.
    Raises `DataError` with the reason where it cannot be read: no plain file, too large, broken, a bomb, or in a
    mode without a known range of values.
    """
    from PIL.Image import Image

    name = "the picture" if isinstance(source, (bytes, Image)) else os.fspath(source)
    try:
        if isinstance(source, Image):
            return upright(source)
        return _turned(_opened(source if isinstance(source, bytes) else read_file(source), smallest))
    except Exception as error:  # whatever a decoder does with hostile bytes, it means that this picture is broken
        raise DataError(f"cannot read {name}: {type(error).__name__}: {error}") from error


def upright(image: Image) -> Image:
    """A copy as RGB, turned as the EXIF orientation says, which the copy no longer has: upright twice is as once.

    16-bit pictures are scaled to 8 bits. Raises `ValueError` for modes without a known range (32-bit, float).
    """
    return _turned(image, ours=False)


def _turned(image: Image, ours: bool = True) -> Image:
    """`upright`; a picture that is nobody else's is not copied where it is as it should be already."""
    from PIL.Image import Transpose

    image.load()  # TIFF is turned by Pillow while it loads
    turn = Transpose[_TURNS[found]] if (found := _orientation(image)) in _TURNS else None
    rgb = _rgb(image)
    if turn is not None:
        rgb = rgb.transpose(turn)
    elif rgb is image and not ours:
        rgb = image.copy()
    rgb.info = {}
    return rgb


_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
    6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
"""What undoes each orientation of EXIF (tag 0x0112; JEITA CP-3451, 4.6.4)."""


_LYING = (5, 6, 7, 8)  # stored with width and height exchanged


def _orientation(image: Image) -> object:
    try:
        return image.getexif().get(0x0112)
    except Exception:  # broken EXIF: the pixels are no worse for it, and say nothing about their orientation
        return None


def _opened(content: bytes, smallest: Smallest | None = None) -> Image:
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            if smallest is not None:
                lying = _orientation(image) in _LYING
                least = smallest(image.size[::-1] if lying else image.size)
                image.draft(None, least[::-1] if lying else least)  # does nothing to what is no JPEG
            image.load()
            return image
    except UnidentifiedImageError:  # its own message holds a memory address, another one in every run
        raise UnidentifiedImageError("not in an image format that Pillow reads") from None


def _rgb(image: Image) -> Image:
    """`image` as RGB of 8 bits. Pillow's own conversion would cut wider values off at 255: nearly all become white."""
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not sixteen and image.mode in ("I", "F"):
        raise ValueError(
            f"pixels of mode {image.mode} (32 bits) have no range that says what is white; save it with 8 or 16 bits"
        )
    image = _eight_bits(image) if sixteen else image
    return image if image.mode == "RGB" else image.convert("RGB")  # a copy of 12 megapixels takes 6 ms


def _eight_bits(image: Image) -> Image:
    """65535 becomes 255, and all between in proportion, rounded."""
    import numpy
    from PIL import Image

    values = numpy.asarray(image).astype(numpy.uint32).clip(0, 65535)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(numpy.uint8))


def is_image(name: str | os.PathLike[str]) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS
