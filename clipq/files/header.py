"""Reading the header of a safetensors file: plain Python, no torch, and nothing in it believed before it is checked.

Format: 8 bytes with the header's length (little endian), the header (JSON), the tensors' bytes
(https://huggingface.co/docs/safetensors). clipq keeps its own JSON under `clipq.*` in the header's string metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

FORMAT_VERSION = 1
VERSION_KEY = "clipq.format_version"
CONFIG_KEY = "clipq.config"
DATA_HASH_KEY = "clipq.data_sha256"
HEADER_HASH_KEY = "clipq.header_sha256"
NO_HASH = "0" * 64  # stands in for a hash while it is computed
MODEL_FILE = "model.safetensors"
EXPORT_REPORT = "clipq-export.json"
"""In every folder that `clipq.export` wrote: what was measured of it."""
GUARDED_FILE = "clipq.safetensors"
"""The model file of a folder that transformers would read as well: one that nobody takes for float weights.

transformers (4.49 and later) skips a `quant_method` that it does not know with a line in a log, and would load int8
numbers from a `model.safetensors` as if they were weights. A file of another name it does not find, which is an error.
"""

_MAX_HEADER = 100 << 20  # safetensors' own limit
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}
_ITEM_BYTES |= {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_CHUNK = 1 << 20


class DamagedError(CheckpointError):
    """A file that is not as it was written: cut off, or not matching its own hashes."""


@dataclass(frozen=True)
class Header:
    """A checked header. `tensors` maps a name to {"dtype", "shape", "data_offsets"}; `data_start` is a file offset."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, dict[str, Any]]
    data_start: int
    size: int

    @cached_property
    def config(self) -> dict[str, Any]:
        """clipq's own part: host, architecture, preprocessing, tokenizer, recipe, source."""
        return _json_object(self.path, self.metadata[CONFIG_KEY], f"metadata {CONFIG_KEY!r}")


def locate(path: str | os.PathLike[str]) -> Path:
    """The model file: `path` itself, or the one in a folder. Raises `CheckpointError` without one."""
    path = Path(path)
    found = model_file(path) if path.is_dir() else path
    if not found.is_file():
        raise CheckpointError(f"{found} does not exist; give a .safetensors file that clipq.save wrote, or its folder.")
    return found


def model_file(folder: Path) -> Path:
    """Where the model of `folder` is, if it is anywhere."""
    guarded = folder / GUARDED_FILE
    return guarded if guarded.is_file() and not (folder / MODEL_FILE).exists() else folder / MODEL_FILE


def has_mark(file: Path, limit: int = 1 << 24) -> bool:
    """Whether clipq's mark is in the header of a safetensors file, or of what pretends to be one."""
    with file.open("rb") as stream:
        return VERSION_KEY.encode() in stream.read(min(int.from_bytes(stream.read(8), "little"), limit))


def read_header(path: str | os.PathLike[str]) -> Header:
    """The checked header of a clipq file (or of the file in a clipq folder).

    Raises `CheckpointError`, naming the file and the tensor, for a file that is cut off, tampered with, written by a
    newer clipq, not written by clipq, or not a well-formed safetensors file.
    """
    path = locate(path)
    size = path.stat().st_size
    with _reading(path), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise DamagedError(f"{path} is truncated or no safetensors file: {size} bytes, header of {length}.")
        if length > _MAX_HEADER:
            raise CheckpointError(f"{path} has a header of {length} bytes; at most {_MAX_HEADER} are allowed.")
        raw = file.read(length)
    entries = _json_object(path, raw, "header")
    metadata = _metadata(path, entries.pop("__metadata__", {}))
    _check_origin(path, metadata)
    if _header_hash(raw, metadata[HEADER_HASH_KEY]) != metadata[HEADER_HASH_KEY]:
        raise DamagedError(f"{path}: the header does not match its sha256; the file was altered. Get it again.")
    _check_layout(path, entries, size - 8 - length)
    header = Header(path, metadata, entries, 8 + length, size)
    _check_config(path, header.config)
    return header


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def check_data(header: Header) -> None:
    """Raise `CheckpointError` if the tensors' bytes do not have the sha256 that the header states."""
    if data_hash(header.path, header.data_start) != header.metadata[DATA_HASH_KEY]:
        raise DamagedError(f"{header.path}: the tensors do not match their sha256; the file was altered. Get it again.")


def data_hash(path: Path, start: int) -> str:
    """sha256 (hex) of everything in the file from the offset `start`."""
    digest = hashlib.sha256()
    with _reading(path), path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def seal(path: Path) -> None:
    """Put the hashes into a file written with `NO_HASH` in their places, and its metadata in order.

    safetensors writes metadata in an order that changes from run to run; the same model shall be the same file.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        raw = _in_order(file.read(length))
        raw = _with_hash(raw, DATA_HASH_KEY, data_hash(path, 8 + length))
        raw = _with_hash(raw, HEADER_HASH_KEY, hashlib.sha256(raw).hexdigest())
        file.seek(8)
        file.write(raw)


def _in_order(raw: bytes) -> bytes:
    entries = json.loads(raw)
    entries["__metadata__"] = dict(sorted(entries["__metadata__"].items()))
    ordered = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode().ljust(len(raw))
    return ordered if len(ordered) == len(raw) else raw


def _with_hash(raw: bytes, key: str, value: str) -> bytes:
    return raw.replace(f'"{key}":"{NO_HASH}"'.encode(), f'"{key}":"{value}"'.encode(), 1)


def _header_hash(raw: bytes, stated: str) -> str:
    """The hash of the header as it was before its own hash was put in."""
    own = f'"{HEADER_HASH_KEY}":"'
    return hashlib.sha256(raw.replace(f'{own}{stated}"'.encode(), f'{own}{NO_HASH}"'.encode(), 1)).hexdigest()


def _json_object(path: Path, text: str | bytes, what: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            f"{path}: the {what} is not valid JSON ({error}); the file is damaged or no safetensors file."
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: the {what} is a JSON {type(value).__name__}, not an object.")
    return value


def _metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: the header's metadata is not a table of strings.")
    return metadata


def _check_origin(path: Path, metadata: Mapping[str, str]) -> None:
    if VERSION_KEY not in metadata:
        raise CheckpointError(
            f"{path} was not written by clipq (no {VERSION_KEY!r}); quantize the model and clipq.save it."
        )
    version = metadata[VERSION_KEY]
    if version not in map(str, range(1, FORMAT_VERSION + 1)):
        raise CheckpointError(
            f"{path} has format version {version!r}; this clipq reads up to {FORMAT_VERSION}. "
            "Upgrade: pip install -U clipq"
        )
    if missing := [key for key in (CONFIG_KEY, DATA_HASH_KEY, HEADER_HASH_KEY) if key not in metadata]:
        raise CheckpointError(f"{path}: the header lacks {', '.join(missing)}.")


def _check_layout(path: Path, tensors: Mapping[str, Any], data_bytes: int) -> None:
    """Every tensor has a known dtype and a shape that fills its bytes; together they cover the data, no byte twice."""
    spans = []
    for name, entry in tensors.items():
        spans.append((*_span(path, name, entry), name))
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            raise CheckpointError(
                f"{path}: tensor {name!r} {'overlaps another' if start < end else 'leaves a gap'} at byte {start}."
            )
        if stop > data_bytes:
            raise DamagedError(f"{path}: tensor {name!r} ends at byte {stop} of {data_bytes}; the file is truncated.")
        end = stop
    if end != data_bytes:
        raise DamagedError(f"{path}: {data_bytes - end} bytes after the last tensor belong to none.")


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    try:
        dtype, shape, (start, stop) = str(entry["dtype"]), entry["shape"], entry["data_offsets"]
        whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in (*shape, start, stop))
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: tensor {name!r} is not described by dtype, shape and data_offsets.") from error
    if dtype not in _ITEM_BYTES:
        raise CheckpointError(f"{path}: tensor {name!r} has dtype {dtype!r}; allowed: {', '.join(_ITEM_BYTES)}.")
    if not whole or prod(shape) * _ITEM_BYTES[dtype] != stop - start:
        raise CheckpointError(f"{path}: tensor {name!r} of {dtype} {shape} does not fill its bytes {start} to {stop}.")
    return start, stop


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    for key, kind in (("host", str), ("config", dict), ("preprocessing", dict), ("recipe", dict), ("source", dict)):
        if not isinstance(config.get(key), kind):
            raise CheckpointError(f"{path}: metadata {CONFIG_KEY!r} has no {key!r}.")
    if not isinstance(config.get("tokenizer"), (dict, type(None))):
        raise CheckpointError(f"{path}: metadata {CONFIG_KEY!r} has a 'tokenizer' that is no table.")
