"""What is to be embedded, listed before a model is loaded: the pictures of a folder, or the lines of a text file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DataError
from .folders import pictures
from .images import Entry, is_image, unlike_a_file
from .scaling import DECODE, check_decode


@dataclass(frozen=True)
class Inputs:
    """What is to be embedded, listed and not yet read: names in order, and the pictures or the lines behind them."""

    source: Path
    tower: str
    names: tuple[str, ...]
    digest: str
    entries: tuple[Entry, ...] = ()  # pictures; without any, the names are the texts
    decode: str = DECODE  # how JPEGs are decoded, of `scaling.DECODES`

    @classmethod
    def of(cls, source: str | os.PathLike[str], decode: str = DECODE) -> Inputs:
        """The pictures of a folder, or the lines of a file. Raises `DataError` if there is nothing to embed.

        decode: "exact" decodes every pixel; "scaled" lets the JPEG decoder leave out what no model of this size sees.
        """
        source, decode = Path(source), check_decode(decode)
        if source.is_dir():
            images = pictures(source)
            names = tuple(entry.key for entry in images.entries)
            return cls(source, "image", names, images.digest(), images.entries, decode)
        lines = _lines(source)
        return cls(source, "text", lines, hashlib.sha256(json.dumps(lines).encode()).hexdigest())

    def without(self, names: Collection[str]) -> Inputs:
        """Those that are not called any of `names`, in order, and no empty lines, which are nothing to embed."""
        known = frozenset(names)
        rows = [row for row, name in enumerate(self.names) if name not in known and (self.entries or name.strip())]
        kept = tuple(self.names[row] for row in rows)
        digest = hashlib.sha256(json.dumps([self.digest, kept]).encode()).hexdigest()
        return replace(
            self, names=kept, entries=tuple(self.entries[row] for row in rows if self.entries), digest=digest
        )

    def label(self, row: int) -> str:
        """What a row is called in messages: its name, or the number of an empty line."""
        return self.names[row].strip() or f"line {row + 1}"


def _lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file, as they stand; a final line break ends the last line and begins no other."""
    if not os.path.lexists(path):
        raise DataError(f"{path} does not exist; give a folder of pictures, or a text file with one text a line.")
    if reason := unlike_a_file(path):
        raise DataError(f"{path} is {reason}; give a folder of pictures, or a text file with one text a line.")
    if is_image(path):
        raise DataError(f"{path} is a picture; give the folder that holds the pictures, or a text file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a UTF-8 text file ({error}); give a text file, or a folder of pictures."
        ) from error
    lines = tuple(line.rstrip("\r") for line in text.removesuffix("\n").split("\n"))
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} holds no text; give one text a line.")
    return lines
