"""A folder of embeddings whose rows are known by their keys: files in no order, each row in one of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..embedding.rows import joined
from ..errors import DataError, OutputError
from ..inputs.listing import Inputs
from ..matrices.broken import BROKEN, broken_table
from ..matrices.embeddings import described_vectors
from ..matrices.folders import MANIFEST, manifest_of, write_shard
from ..resources import json_text
from ..spaces.space import check_equal, space_in
from ..vectors.ranges import Ranges
from ..work.shards import Shard
from .store import Store

if TYPE_CHECKING:
    import numpy

    from ..embedding.embedder import Embedder

_ORDER = "of no meaning: shards by the names of their files, which are made of the keys of their rows"
_SAID = ".parquet.json"


@dataclass(frozen=True)
class Keyed:
    """The folder at `store`, for vectors that `about` describes. rows: that a file is of, at most."""

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
        for name in [MANIFEST] if MANIFEST in names else [one for one in names if one.endswith(_SAID)][:1]:
            found._check(json.loads(found.store.read(name)))
        strangers = [one for one in names if one not in (MANIFEST, BROKEN) and not one.startswith((".", "shard-"))]
        if strangers:
            raise OutputError(f"{place} holds {strangers[0]!r}, which clipq did not write; give a folder of its own.")
        return found

    def _check(self, there: Mapping[str, Any]) -> None:
        own, other = space_in(self.about, "this job"), space_in(there.get("of", there), f"{self.store.place}")
        if own is not None and other is not None:
            check_equal(other, own, (f"what {self.store.place} holds", "this model's vectors"))
        described = described_vectors(self.dtype, 0, 0, self.ranges)
        for key in ("dtype", "ranges"):
            if there.get("of", there).get(key) != described.get(key):
                raise DataError(f"{self.store.place} holds vectors of another {key}; give another folder.")

    def known(self) -> Known:
        """What is there, and finished: each file is read, and one that is not as its sha256 says is removed."""
        entries, keys = [], []
        for name, entry in self._entries().items():
            content = self.store.read(name) if name in self.store.names() else b""
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                self.store.remove(f"{name}.json")
                self.store.remove(name)
                continue
            entries.append(entry)
            keys += _keys(content)
        return Known(entries, _hashes(keys))

    def _entries(self) -> dict[str, dict[str, Any]]:
        names = self.store.names()
        found = {}
        if MANIFEST in names:
            manifest = json.loads(self.store.read(MANIFEST))
            found = {entry["file"]: {**entry, "width": manifest["width"]} for entry in manifest["shards"]}
        said = [json.loads(self.store.read(name)) for name in names if name.endswith(_SAID)]
        return found | {entry["file"]: entry for entry in said}

    def write(self, names: Sequence[str], found: Shard, embedder: Embedder) -> dict[str, Any]:
        """Write the file of these rows, and then what says that it is there, which is returned."""
        key = hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        inputs = Inputs("", self.about["tower"], tuple(names), "")
        matrix = joined(inputs, [found], dict(self.about), self.dtype, self.ranges, lambda: found.embeddings)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"shard-{key}.parquet")
            entry = {**write_shard(matrix, path, 0), "of": self._of()}
            self.store.write(path.name, path.read_bytes())
            self.store.write(f"{path.name}.json", json.dumps(entry).encode())
        return entry

    def _of(self) -> dict[str, Any]:
        """What has to be the same in all files."""
        of = {key: self.about[key] for key in ("space", "space_id")}
        return of | {
            k: v for k, v in described_vectors(self.dtype, 0, 0, self.ranges).items() if k in ("dtype", "ranges")
        }

    def finish(self, entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Write `broken.parquet` and the manifest, which is returned. Raises `DataError` if there is no row at all."""
        ordered, start = [], 0
        for entry in sorted({one["file"]: one for one in entries}.values(), key=lambda one: one["file"]):
            ordered.append({**{key: value for key, value in entry.items() if key != "of"}, "start": start})
            start += entry["rows"] + entry["broken"]
        if not any(entry["rows"] for entry in ordered):
            raise DataError(f"none of the {start} rows can be embedded, or there are none; {self._first(ordered)}")
        vectors = described_vectors(self.dtype, ordered[0]["width"], 0, self.ranges)
        whole = manifest_of({**self.about, **vectors, "shard_size": self.rows}, ordered, _ORDER)
        self._broken(ordered)
        self.store.write(MANIFEST, json_text(whole).encode())
        for entry in ordered:
            self.store.remove(f"{entry['file']}.json")
        return whole

    def _broken(self, entries: Sequence[Mapping[str, Any]]) -> None:
        rows = (row for entry in entries if entry["broken"] for row in self._broken_of(entry))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, BROKEN)
            if broken_table(rows, path):
                self.store.write(BROKEN, path.read_bytes())
            else:
                self.store.remove(BROKEN)

    def _broken_of(self, entry: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return _about(self.store.read(entry["file"]))["broken"].items()

    def _first(self, entries: Sequence[Mapping[str, Any]]) -> str:
        found = [row for entry in entries for row in self._broken_of(entry)][:1]
        return f"the first: {': '.join(found[0])}" if found else "give a data set that has some."


@dataclass
class Known:
    """Entries of finished files, and the keys of their rows, as sorted hashes of 16 bytes each."""

    entries: list[dict[str, Any]]
    hashes: numpy.ndarray = field(repr=False)

    def lacking(self, names: Sequence[str]) -> list[int]:
        """The places of those names that are in no finished file."""
        import numpy

        if not len(self.hashes):
            return list(range(len(names)))
        asked = _hashes(names, in_order=False)
        places = numpy.searchsorted(self.hashes["first"], asked["first"]).clip(max=len(self.hashes) - 1)
        return numpy.flatnonzero(self.hashes[places] != asked).tolist()


def _hashes(names: Sequence[str], in_order: bool = True) -> numpy.ndarray:
    import numpy

    kind = numpy.dtype([("first", "<u8"), ("second", "<u8")])
    digests = (hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest() for name in names)
    found = numpy.frombuffer(b"".join(digests), kind)
    return numpy.sort(found) if in_order else found


def _keys(content: bytes) -> list[str]:
    """The keys of all rows that a file is of, also of those that have no vector."""
    from pyarrow import parquet

    names = parquet.read_table(io.BytesIO(content), columns=["name"]).column("name").to_pylist()
    names = [one if isinstance(one, str) else one.decode("utf-8", "surrogateescape") for one in names]
    return [*names, *_about(content)["broken"]]


def _about(content: bytes) -> dict[str, Any]:
    from pyarrow import parquet

    return json.loads(parquet.read_schema(io.BytesIO(content)).metadata[b"clipq"])
