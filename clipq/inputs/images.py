"""What an evaluation reads: a list of images with a key and a label each, opened one at a time."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

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


def _balanced(entries: Sequence[Entry], limit: int) -> list[int]:
    ranked: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for index, entry in enumerate(entries):
        ranked[entry.label].append((hashlib.sha256(entry.key.encode("utf-8", "surrogateescape")).hexdigest(), index))
    labels = sorted(ranked)
    rounds = sorted((place, label, index) for label in labels for place, (_, index) in enumerate(sorted(ranked[label])))
    last = rounds[limit - 1][0]  # the round that is not taken whole
    taken = [index for place, _, index in rounds if place < last]
    partial = [index for place, _, index in rounds if place == last]
    wanted = limit - len(taken)
    return taken + [partial[i * len(partial) // wanted] for i in range(wanted)]


@dataclass(frozen=True)
class FileEntry:
    """An image file in a folder."""

    path: Path
    key: str
    label: int
    size: int

    def read(self) -> bytes:
        if self.size > MAX_BYTES:
            raise OSError(f"{self.size} bytes, more than the {MAX_BYTES} that are read")
        return self.path.read_bytes()


def decode(entry: Entry) -> Image:
    """The image as RGB, fully decoded. Raises whatever Pillow raises where it is broken, truncated or a bomb."""
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(entry.read())) as image:
            return image.convert("RGB")
    except UnidentifiedImageError:  # its own message holds a memory address, another one in every run
        raise UnidentifiedImageError("not in an image format that Pillow reads") from None


def is_image(name: str | os.PathLike[str]) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS
