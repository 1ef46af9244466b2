"""What is to be embedded, listed before a model is loaded: the pictures of a folder, or the lines of a text file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .archives import tar_members
from .folders import has_pictures, pictures
from .images import Entry, Images, is_image, unlike_a_file
from .places import files_at, is_remote
from .scaling import DECODE, check_decode
from .table_columns import Asked
from .table_listing import Listed, listed_table
from .table_rows import TableRow


@dataclass(frozen=True)
class Inputs:
    """What is to be embedded, listed and not yet read: names in order, and the pictures or the lines behind them."""

    source: Path | str
    tower: str
    names: Sequence[str]
    digest: str
    entries: Sequence[Entry | TableRow] = ()  # without any, the names are the texts
    decode: str = DECODE  # how JPEGs are decoded, of `scaling.DECODES`
    given_up: str = ""  # the column that was to name the rows of a table, and gives some the same name
    first: int = 0  # the row that stands first: these may be a part of longer inputs, see `part`

    @classmethod
    def of(
        cls,
        source: str | os.PathLike[str],
        decode: str = DECODE,
        column: str | None = None,
        names: str | None = None,
        as_: str | None = None,
        output: str | os.PathLike[str] | None = None,
    ) -> Inputs:
        """The pictures of a folder, the lines of a file, the rows of parquet files, or the pictures in webdataset tars.

        source: a folder of pictures, of `.parquet` files or of `.tar` files; one such file, or a pattern ("p/*.tar");
        any other file is one of texts. Tables and tars may be URLs that fsspec opens (s3://, gs://, https://, ...).
        decode: "exact" decodes every pixel; "scaled" lets the JPEG decoder leave out what no model of this size sees.
        column, names: of tables, the column of pictures (bytes, {"bytes", "path"} or paths) or texts, and the one that
        names the rows; None: the ones that it must be. The paths of a column are only opened if it is named.
        as_: what the strings in that column are, "path" (of pictures; or URLs) or "text"; None: what they look like.
        output: the file that is written; among the tables of a folder or a pattern it is none of the inputs.
        Raises `DataError` if there is nothing to embed.
        """
        decode, asked = check_decode(decode), Asked(column, names, as_)
        if not is_remote(source):
            source = Path(source)
        for ending, listed in _CONTAINERS.items():
            if files := _files(source, ending, output):
                return listed(cls, source, files, decode, asked)
        if is_remote(source) or ("*" in str(source) and not os.path.lexists(source)):
            raise DataError(f"{source} names no {' and no '.join(_CONTAINERS)} file; correct the URL or the pattern.")
        asked.refuse(source)
        if source.is_dir():
            images = pictures(source)
            names = tuple(entry.key for entry in images.entries)
            here = str(Path.cwd())
            entries = tuple(replace(entry, base=here) for entry in images.entries)
            return cls(source, "image", names, images.digest(), entries, decode)
        lines = _lines(source)
        return cls(source, "text", lines, hashlib.sha256(json.dumps(lines).encode()).hexdigest())

    def part(self, rows: range) -> Inputs:
        """The inputs of `rows` alone, which keep their numbers: what a worker elsewhere is sent."""
        own = slice(rows.start - self.first, rows.stop - self.first)
        return replace(self, names=tuple(self.names[own]), entries=tuple(self.entries[own]), first=rows.start)

    def name(self, row: int) -> str:
        return self.names[row - self.first]

    def entry(self, row: int) -> Entry | TableRow:
        return self.entries[row - self.first]

    def text(self, row: int) -> str | None:
        """A row's text; None where a table has none."""
        return self.entry(row).read() if self.entries else self.name(row)

    def without(self, names: Collection[str]) -> Inputs:
        """Those that are not called any of `names`, in order, and no empty lines, which are nothing to embed.

        Raises `DataError` where they may be known by names that are not used here, as they are not all different.
        """
        known = frozenset(names)
        rows = [row for row, name in enumerate(self.names) if name not in known and (self.entries or name.strip())]
        if self.given_up and known and len(rows) == len(self.names):
            raise DataError(
                f"which rows of {self.source} are there already cannot be told: its column {self.given_up!r} gives "
                "several the same name, and none is there by FILE#ROW. Name another column: --names NAME."
            )
        kept = tuple(self.names[row] for row in rows)
        digest = hashlib.sha256(json.dumps([self.digest, kept]).encode()).hexdigest()
        return replace(
            self, names=kept, entries=tuple(self.entries[row] for row in rows if self.entries), digest=digest
        )

    def label(self, row: int) -> str:
        """What a row is called in messages: its name, or the number of an empty line."""
        return self.name(row).strip() or f"line {row + 1}"


def _files(source: Path | str, ending: str, output: str | os.PathLike[str] | None) -> list[str]:
    """The files of a folder, a pattern or a name; none for a folder that has pictures: it is one of pictures.

    By their whole paths: workers elsewhere have other working folders. Without `output`, unless that is what is named.
    """
    files = files_at(source, (ending,))
    if is_remote(source):
        return files
    if source.is_dir() and files and has_pictures(source):
        return []
    files = [str(Path(file).absolute()) for file in files]
    if output is None or not Path(output).is_file() or source.is_file():
        return files
    return [one for one in files if Path(one).name != Path(output).name or not Path(one).samefile(output)]


def _of_tables(kind: type[Inputs], source: Any, files: list[str], decode: str, asked: Asked) -> Inputs:
    table = listed_table(files, asked)
    count = sum(table.rows)
    entries = Listed(count, table.entry)
    return kind(source, table.column.tower, Listed(count, table.name), table.digest, entries, decode, table.given_up)


def _of_tars(kind: type[Inputs], source: Any, files: list[str], decode: str, asked: Asked) -> Inputs:
    asked.refuse(source)
    entries = tar_members(files)
    if not entries:
        raise DataError(f"{source} holds no images; a webdataset tar has members such as 0001.jpg.")
    names = tuple(entry.key for entry in entries)
    return kind(source, "image", names, Images(entries, str(source)).digest(), entries, decode)


_CONTAINERS = {".parquet": _of_tables, ".tar": _of_tars}
"""How the files of each ending are listed."""


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
