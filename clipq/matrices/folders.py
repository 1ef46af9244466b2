"""Embeddings as a folder of numbered shards with a manifest, for more of them than fit into memory at once."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, OutputError, unknown_name
from ..resources import check_output_folder, json_text, output_path, unwritten
from .embeddings import Embeddings
from .files import read_file, save_embeddings

MANIFEST = "manifest.json"
SHARD_FORMATS = ("safetensors", "parquet")
_KIND = "clipq embeddings in shards"
_ORDER = "shard by shard, row by row, as the inputs were listed: paths sorted, lines as they stand"
_SAME = ("fingerprint", "space_id", "tower", "normalized", "dtype", "width", "ranges")
"""What has to be the same in the manifest and in every shard."""
_OF_SHARDS = ("kind", "format", "order", "rows", "shards", "broken", "mended")


@dataclass(frozen=True)
class ShardedFolder:
    """Where shards go: a folder that does not exist yet, how many inputs each shard is of, and its files' format.

    The path is made absolute, as it is for workers that run elsewhere; a link stands for the folder that it leads to.
    """

    path: Path
    size: int
    format: str = "safetensors"

    def __post_init__(self) -> None:
        path = os.path.abspath(self.path)  # noqa: PTH100 (links on the way stay as they are)
        object.__setattr__(self, "path", Path(os.path.realpath(path) if Path(path).is_symlink() else path))
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise DataError(f"a shard of {self.size!r} inputs cannot be; give a whole number >= 1, such as 10000")
        if self.format not in SHARD_FORMATS:
            raise unknown_name("format", self.format, SHARD_FORMATS)

    def check(self, force: bool = False) -> None:
        """Raise `OutputError` if the folder cannot be made: better before the work than after it.

        force: a folder of shards that stands there already will be replaced; anything else is left alone.
        """
        if self.path.exists() and not _is_empty(self.path):
            if not force:
                raise OutputError(f"{self.path} exists already; choose another name, or overwrite it with --force.")
            if not (self.path / MANIFEST).is_file():
                raise OutputError(f"{self.path} is no folder of shards that clipq wrote, so it is not overwritten.")
        check_output_folder(self.unfinished)

    @property
    def unfinished(self) -> Path:
        """Where the shards stand until all are there."""
        return self.path.with_name(f"{self.path.name}.unfinished")

    def shard(self, number: int) -> str:
        """The name of a shard's file."""
        return f"shard-{number:06d}.{self.format}"


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def write_shard(found: Embeddings, path: Path, start: int) -> dict[str, Any]:
    """Write a shard, and then `FILE.json` beside it, which says that it is finished; returned is what that says.

    start: the place of its first input among all. Raises what `save_embeddings` does.
    """
    save_embeddings(found, path)
    entry = {
        "file": path.name,
        "start": start,
        "rows": len(found.names),
        "width": found.about["width"],
        "broken": len(found.broken),
        "saturated": found.about.get("saturated", 0),
        "first": found.names[0] if found.names else None,
        "last": found.names[-1] if found.names else None,
        "bytes": path.stat().st_size,
        "sha256": _sha256(path),
    }
    with output_path(_said_of(path)) as temporary:
        temporary.write_text(json.dumps(entry), encoding="utf-8")
    return entry


def said_of_shards(folder: Path) -> dict[str, dict[str, Any]]:
    """What a manifest that `finish` wrote says of each shard, as `write_shard` said it; nothing where there is none."""
    try:
        about = read_manifest(folder)
        return {entry["file"]: {**entry, "width": about["width"]} for entry in about["shards"]}
    except (DataError, LookupError):
        return {}


def finished_shard(path: Path, said: Mapping[str, dict[str, Any]] | None = None) -> dict[str, Any] | None:
    """What `write_shard` said of a shard, if that is there and the file is still the one it said it of.

    said: of `said_of_shards`, where a run was killed after `finish`, which removes what `write_shard` wrote.
    """
    try:
        entry = json.loads(_said_of(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entry = (said or {}).get(path.name)
    try:
        return entry if entry["file"] == path.name and entry["sha256"] == _sha256(path) else None
    except (OSError, LookupError, TypeError):
        return None


def _said_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def finish(folder: Path, about: Mapping[str, Any], entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the manifest of a folder of finished shards and remove what `write_shard` wrote beside them."""
    whole = _written(folder, manifest_of(about, entries))
    for entry in entries:
        with suppress(FileNotFoundError):
            _said_of(folder / entry["file"]).unlink()
    return whole


def _written(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    with output_path(folder / MANIFEST) as temporary:
        temporary.write_text(json_text(manifest), encoding="utf-8")
    return manifest


def _listed(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a manifest lists of shards; it says the width once, for all."""
    return [{key: value for key, value in entry.items() if key != "width"} for entry in entries]


def format_of(manifest: Mapping[str, Any]) -> str:
    """That of the shards' files, of `SHARD_FORMATS`."""
    return Path(manifest["shards"][0]["file"]).suffix.removeprefix(".")


def manifest_of(about: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], order: str = _ORDER) -> dict[str, Any]:
    """What the manifest of finished shards says."""
    return {
        "kind": _KIND,
        "format": 1,
        **about,
        "order": order,
        **{key: sum(entry[key] for entry in entries) for key in ("rows", "broken", "saturated")},
        "shards": _listed(entries),
    }


def extend(folder: Path, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add shards, whose files lie in the folder already, to its manifest; what that says then.

    An input that could not be read before and has a row now is named among `mended`: the shard that says it is broken
    stays as it is.
    """
    about = read_manifest(folder)
    broken, mended = set(dict(read_broken(folder))), set(about.get("mended", ()))
    for entry in entries:
        found = read_file(folder / entry["file"])
        mended |= broken & set(map(str.strip, found.names))
        broken |= set(found.broken)
    totals = {key: about[key] + sum(entry[key] for entry in entries) for key in ("rows", "saturated")}
    whole = {**about, **totals, "broken": len(broken - mended), "shards": about["shards"] + _listed(entries)}
    return _written(folder, whole | ({"mended": sorted(mended)} if mended else {}))


def of_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of the model and of all vectors, and nothing of shards."""
    return {key: value for key, value in manifest.items() if key not in _OF_SHARDS}


def put_in_place(folder: Path, path: Path) -> None:
    """Rename a finished folder to `path`; a folder of shards that stands there is removed once the new one does."""
    old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # as `resources.remove_stale` knows them
    try:
        if path.exists():
            os.replace(path, old)
        os.replace(folder, path)
    except OSError as error:
        with suppress(OSError):  # it is still in its place, or there was none
            os.replace(old, path)
        raise unwritten(path, error) from error
    shutil.rmtree(old, ignore_errors=True)


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What the manifest of a folder of shards says. Raises `DataError`."""
    path = Path(folder) / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        reason = misfit_of_manifest(found)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
    if reason:
        raise DataError(f"{path} is no manifest that clipq wrote: {reason}. Make the folder again with `clipq embed`.")
    return found


def misfit_of_manifest(found: Any) -> str:
    """What is wrong with what stands in a manifest; "" if nothing is."""
    if not isinstance(found, dict) or found.get("kind") != _KIND or not isinstance(found.get("shards"), list):
        return f"it is not of kind {_KIND!r}"
    for entry in found["shards"]:
        name = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            return f"a shard is called {name!r}, which is no name of a file in the folder"
        if type(entry.get("rows")) is not int or entry["rows"] < 0:
            return f"{name} has {entry.get('rows')!r} rows"
    total = sum(entry["rows"] for entry in found["shards"])
    return "" if found["shards"] and found.get("rows") == total else f"it says {found.get('rows')!r} rows, not {total}"


def read_shards(folder: str | os.PathLike[str]) -> Iterator[Embeddings]:
    """The shards of a folder that `clipq embed --shard-size` wrote, in order, each of them checked against its sha256.

    Raises `DataError` for a folder without a manifest, and naming the shard that is missing, damaged or another.
    """
    folder, about = Path(folder), read_manifest(folder)
    for entry in about["shards"]:
        yield _read(folder / entry["file"], entry, about)


def read_shard(folder: Path, about: Mapping[str, Any], number: int) -> Embeddings:
    """One shard of a folder of this manifest, not compared with its sha256: only what is looked at of it is read."""
    entry = about["shards"][number]
    return _fitting(folder / entry["file"], entry, about)


def read_broken(folder: Path) -> Iterator[tuple[str, str]]:
    """The inputs without a row, and why, in order; of the shards only those are read that have any."""
    about = read_manifest(folder)
    said = set(about.get("mended", ()))
    for entry in about["shards"]:
        for name, why in _read(folder / entry["file"], entry, about).broken.items() if entry.get("broken") else ():
            if name not in said:  # two shards say it of an input that was tried again
                said.add(name)
                yield name, why


def _read(path: Path, entry: Mapping[str, Any], about: Mapping[str, Any]) -> Embeddings:
    try:
        same = _sha256(path) == entry.get("sha256")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Copy the whole folder again.") from error
    if not same:
        raise DataError(f"{path} is not the shard that {MANIFEST} names: its sha256 is another. Make it again.")
    return _fitting(path, entry, about)


def _fitting(path: Path, entry: Mapping[str, Any], about: Mapping[str, Any]) -> Embeddings:
    found = read_file(path)
    other = [key for key in _SAME if found.about.get(key) != about.get(key)]
    if other or len(found.names) != entry["rows"]:
        raise DataError(f"{path} does not fit {MANIFEST} in {', '.join(other) or 'rows'}. Make the folder again.")
    return found


def read_folder(folder: Path) -> Embeddings:
    """All shards of a folder as one matrix. Raises as `read_shards`."""
    import torch

    about = read_manifest(folder)
    names, broken, matrix, ranges = [], {}, torch.empty(0), None
    for shard in read_shards(folder):
        if not names:
            matrix, ranges = shard.matrix.new_empty(about["rows"], shard.matrix.shape[1]), shard.ranges
        matrix[len(names) : len(names) + len(shard.names)] = shard.matrix
        names += shard.names
        broken |= shard.broken
    for name in about.get("mended", ()):
        broken.pop(name, None)
    own = of_manifest(about)
    if own.get("dtype") == "float32":
        own.pop("saturated")
    return Embeddings(tuple(names), matrix, broken, own, ranges=ranges)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()
