"""A folder of embeddings whose rows are known by their keys: files in no order, each row in one of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..embedding.rows import finite, joined
from ..errors import DataError, OutputError
from ..inputs.listing import Inputs
from ..matrices.broken import BROKEN, broken_table
from ..matrices.embeddings import described_vectors
from ..matrices.folders import MANIFEST, manifest_of, misfit_of_manifest, write_shard
from ..matrices.parquet import about_of, names_of
from ..resources import json_text
from ..spaces.space import check_equal, space_in
from ..vectors.ranges import Ranges
from ..work.shards import Shard
from .keys import Known, digests, holds, in_order, repeated
from .store import Store

if TYPE_CHECKING:
    import numpy

_ORDER = "of no meaning: shards by the names of their files, which are made of the keys of their rows"
_FILE = re.compile(r"shard-[0-9a-f]{16}\.parquet")
"""The files that are written here; no other one is ever removed."""
_SAID = ".json"


@dataclass(frozen=True)
class Keyed:
    """The folder at `store`, for vectors that `about` describes. rows: that a file is of, at most.

    A file is finished once `FILE.json` says so, or the manifest, which takes its place at the end. Nothing is removed
    before there is a manifest without it.
    """

    store: Store
    about: Mapping[str, Any]
    dtype: str
    ranges: Ranges | None
    rows: int

    @classmethod
    def at(
        cls, place: str | os.PathLike[str], about: Mapping[str, Any], dtype: str, ranges: Ranges | None, rows: int
    ) -> Keyed:
        """The folder, made if need be. Raises `SpaceError` or `DataError` if other vectors are in it, `OutputError` if
        something else is.
        """
        found = cls(Store.at(place), about, dtype, ranges, rows)
        names = found.store.names()
        said = [found._manifest()] if MANIFEST in names else (entry["of"] for entry in found._said(names))
        for there in said:
            found._check(there)
            break
        own = (MANIFEST, BROKEN)
        strangers = [one for one in names if one not in own and not one.startswith(".") and not _file_of(one)]
        if strangers:
            raise OutputError(f"{place} holds {strangers[0]!r}, which is not of this call; give a folder of its own.")
        return found

    def _check(self, there: Mapping[str, Any]) -> None:
        own, other = space_in(self.about, "this job"), space_in(there, f"{self.store.place}")
        if own is not None and other is not None:
            check_equal(other, own, (f"what {self.store.place} holds", "this model's vectors"))
        described = described_vectors(self.dtype, 0, 0, self.ranges)
        for key in ("dtype", "ranges"):
            if there.get(key) != described.get(key):
                raise DataError(f"{self.store.place} holds vectors of another {key}; give another folder.")

    def known(self) -> Known:
        """What is there, and finished: each file is read, and one that is not as its sha256 says is none.

        Raises `DataError` for a key that is of several rows.
        """
        names = self.store.names()
        entries, keys = [], []
        for entry in self._entries(names).values():
            content = self.store.read(entry["file"]) if entry["file"] in names else b""
            if hashlib.sha256(content).hexdigest() == entry["sha256"]:
                entries.append(entry)
                keys.append(digests(_keys(content)))
        found = Known(entries, in_order(keys))
        self._check_once(found.hashes, entries)
        return found

    def _check_once(self, hashes: numpy.ndarray, entries: Sequence[Mapping[str, Any]]) -> None:
        """Raise `DataError` if one of the sorted digests is there twice."""
        if (twice := repeated(hashes)) is None:
            return
        keys = {entry["file"]: holds(_keys(self.store.read(entry["file"])), twice) for entry in entries}
        found = {file: key for file, key in keys.items() if key is not None}
        raise DataError(
            f"more than one row has the key {next(iter(found.values()), twice)!r}, and a row is known by it. Give each "
            f"row one of its own, remove {' and '.join(sorted(found))} from {self.store.place}, and call again: other "
            "files are kept."
        )

    def _entries(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """By the names of files."""
        found = {}
        if MANIFEST in names:
            about = self._manifest()
            found = {entry["file"]: {**entry, "width": about["width"]} for entry in about["shards"]}
        return found | {entry["file"]: entry for entry in self._said(names)}

    def _manifest(self) -> dict[str, Any]:
        """Raises `DataError` if it is not of such a folder: files that it names may be replaced."""
        try:
            found = json.loads(self.store.read(MANIFEST))
            reason = misfit_of_manifest(found)
        except ValueError as error:
            reason = f"{error} (remove it if a kill has cut it off)"
        for entry in () if reason else found["shards"]:
            if not _fits({**entry, "width": found.get("width")}, entry["file"]):
                reason = f"its shard {entry['file']!r} is none of rows that are known by their keys"
        if reason:
            raise DataError(f"{self.store.place}/{MANIFEST} is not of this call: {reason}. Give another folder.")
        return found

    def _said(self, names: Sequence[str]) -> Iterable[dict[str, Any]]:
        """What stands beside files; where a kill has cut that off, its file is not finished."""
        for name in names:
            if name.endswith(_SAID) and (file := _file_of(name)):
                with suppress(ValueError):
                    entry = json.loads(self.store.read(name))
                    if _fits(entry, file) and isinstance(entry.get("of"), dict):
                        yield entry

    def write(self, names: Sequence[str], found: Shard) -> dict[str, Any]:
        """Write the file of these rows, and then what says that it is there, which is returned."""
        found = finite(found)
        path = f"shard-{hashlib.sha256(chr(0).join(names).encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.parquet"
        inputs = Inputs("", self.about["tower"], tuple(names), "")
        good = [replace(found, broken={})]
        matrix = joined(inputs, good, dict(self.about), self.dtype, self.ranges, lambda: found.embeddings)
        matrix = replace(matrix, broken={names[row]: why for row, why in found.broken.items()})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, path)
            entry = {**write_shard(matrix, path, 0), "of": self._of()}
            self.store.write(path.name, path.read_bytes())
            self.store.write(f"{path.name}{_SAID}", json.dumps(entry).encode())
        return entry

    def _of(self) -> dict[str, Any]:
        """What has to be the same in all files."""
        vectors = described_vectors(self.dtype, 0, 0, self.ranges)
        own = {key: vectors[key] for key in ("dtype", "ranges") if key in vectors}
        return {key: self.about[key] for key in ("space", "space_id")} | own

    def finish(self, known: Known) -> dict[str, Any]:
        """Write `broken.parquet` and the manifest, which is returned, and remove files that no run has finished.

        Raises `DataError` if there is no row at all, or several are of one key.
        """
        self._check_once(in_order(known.seen), known.entries)
        ordered, start = [], 0
        for entry in sorted({one["file"]: one for one in known.entries}.values(), key=lambda one: one["file"]):
            ordered.append({**{key: value for key, value in entry.items() if key != "of"}, "start": start})
            start += entry["rows"] + entry["broken"]
        if not any(entry["rows"] for entry in ordered):
            raise DataError(f"none of the {start} rows can be embedded, or there are none; {self._first(ordered)}")
        vectors = described_vectors(self.dtype, ordered[0]["width"], 0, self.ranges)
        whole = manifest_of({**self.about, **vectors, "shard_size": self.rows}, ordered, _ORDER)
        self._broken(ordered)
        self.store.write(MANIFEST, json_text(whole).encode())
        self._clear({entry["file"] for entry in ordered})
        return whole

    def _clear(self, files: Collection[str]) -> None:
        """Remove what the manifest says now, and files besides `files`, whose rows are in those."""
        for name in self.store.names():
            if (file := _file_of(name)) and (file != name or file not in files):
                self.store.remove(name)

    def _broken(self, entries: Sequence[Mapping[str, Any]]) -> None:
        rows = (row for entry in entries if entry["broken"] for row in self._broken_of(entry))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, BROKEN)
            if broken_table(rows, path):
                self.store.write(BROKEN, path.read_bytes())
            else:
                self.store.remove(BROKEN)

    def _broken_of(self, entry: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return about_of(io.BytesIO(self.store.read(entry["file"])))[0]["broken"].items()

    def _first(self, entries: Sequence[Mapping[str, Any]]) -> str:
        found = [row for entry in entries for row in self._broken_of(entry)][:1]
        return f"the first: {': '.join(found[0])}" if found else "give a data set that has some."


def _file_of(name: str) -> str:
    """The file that a name is of, its own or that of what is said of it; "" for all others."""
    file = name.removesuffix(_SAID)
    return file if _FILE.fullmatch(file) else ""


def _fits(entry: Any, file: str) -> bool:
    """Whether this is what `write_shard` says of a file."""
    counts = ("rows", "width", "broken", "saturated", "bytes")
    return (
        isinstance(entry, dict)
        and entry.get("file") == file == _file_of(file)
        and isinstance(entry.get("sha256"), str)
        and all(type(entry.get(key)) is int and entry[key] >= 0 for key in counts)
    )


def _keys(content: bytes) -> list[str]:
    """The keys of all rows that a file is of, also of those that have no vector."""
    return [*names_of(io.BytesIO(content)), *about_of(io.BytesIO(content))[0]["broken"]]
