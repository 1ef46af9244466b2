"""Embeddings as a file: a matrix with the names of its rows, and the ranges that its codes are measured by."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..resources import check_output_path, output_path
from ..vectors.codes import KINDS
from ..vectors.ranges import TENSORS, Ranges
from .embeddings import Embeddings
from .parquet import about_parquet, read_parquet, save_parquet

if TYPE_CHECKING:
    import torch

_MAX_HEADER = 90_000_000  # bytes of names; a safetensors header ends at 100 MB


def save_embeddings(found: Embeddings, path: str | os.PathLike[str]) -> None:
    """Write a `.safetensors` file (tensor "embeddings"; names and the rest in its metadata, as JSON under "clipq";

    the ranges as tensors "ranges.mean", "ranges.std", "ranges.limit"), a `.npy` file with `FILE.names.txt` (a name a
    line), `FILE.json` (the rest) and `FILE.ranges.safetensors` (the ranges, if it has any) beside it, or a `.parquet`
    file (columns "name" and "embedding"; the rest and the ranges in its metadata under "clipq").
    Raises `DataError` for another ending, or names that the format cannot hold, `OutputError` for a full disk.
    """
    path = Path(path)
    _check_names(path, found.names)
    rest = {"format": 1, **found.about, "broken": found.broken}
    _FORMATS[path.suffix].save(found, rest, path)


def check_output(path: Path, names: Sequence[str] = ()) -> None:
    """Raise what `save_embeddings` would: better before the work than after it.

    Also raises `OutputError` if the folder of `path` is missing: a mistyped name makes none.
    """
    _check_names(path, names)
    for one in (path, *(beside(path) if path.suffix == ".npy" else ())):
        check_output_path(one)


def beside(path: Path) -> tuple[Path, Path, Path]:
    """The names, the rest and the ranges of a `.npy` file."""
    names, rest, ranges = (path.with_name(path.name + end) for end in (".names.txt", ".json", ".ranges.safetensors"))
    return names, rest, ranges


def _check_names(path: Path, names: Sequence[str]) -> None:
    if path.suffix not in FORMATS:
        raise DataError(f"cannot write {path}: the ending says the format; allowed: {', '.join(FORMATS)}.")
    if path.suffix == ".npy" and (bad := next((name for name in names if "\n" in name or "\r" in name), None)):
        raise DataError(
            f"the name {bad!r} holds a line break, which a list of names cannot keep; write .safetensors instead."
        )
    if path.suffix == ".safetensors" and len(json.dumps([*names])) > _MAX_HEADER:
        raise DataError(f"{len(names)} names are too long for the header of a .safetensors file; write .npy instead.")


def _save_safetensors(found: Embeddings, rest: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    metadata = {"clipq": json.dumps({**rest, "names": found.names})}
    with output_path(path) as temporary:
        save_file({"embeddings": found.matrix.contiguous(), **_tensors(found.ranges)}, temporary, metadata=metadata)


def _tensors(ranges: Ranges | None) -> dict[str, torch.Tensor]:
    return {} if ranges is None else {f"ranges.{name}": getattr(ranges, name).contiguous() for name in TENSORS}


def _save_ranges(ranges: Ranges | None, path: Path) -> None:
    from safetensors.torch import save_file

    if ranges is None:
        path.unlink(missing_ok=True)  # of a file that is being overwritten
        return
    with output_path(path) as temporary:
        save_file(_tensors(ranges), temporary)


def _save_npy(found: Embeddings, rest: dict[str, Any], path: Path) -> None:
    import numpy

    names, about, ranges = beside(path)
    lines = "".join(f"{name}\n" for name in found.names)
    with output_path(path) as matrix, output_path(about) as said, output_path(names) as listed:
        # None takes its place before all of them are whole: what stands there may be what was added to.
        with matrix.open("wb") as file:
            numpy.save(file, found.matrix.numpy(), allow_pickle=False)
        said.write_text(json.dumps(rest, indent=1) + "\n", encoding="utf-8")
        listed.write_text(lines, encoding="utf-8", errors="surrogateescape")
        _save_ranges(found.ranges, ranges)


def read_file(path: Path) -> Embeddings:
    """What `save_embeddings` wrote; the matrix of a .safetensors or .npy file is mapped: read where it is looked at.

    Raises `DataError` naming the file if it is missing, damaged or something else.
    """
    if path.suffix not in _FORMATS:
        raise DataError(f"cannot read {path}: the ending says the format; known: {', '.join(FORMATS)}.")
    try:
        matrix, names, about, tensors = _FORMATS[path.suffix].read(path)
        broken = about.pop("broken", {})
        about.pop("format", None)
        ranges = Ranges(*(tensors[name] for name in TENSORS), about=_origin(about)) if tensors else None
        found = Embeddings(tuple(names), matrix, broken, about, ranges=ranges)
        reason = damage(found)
    except Exception as error:  # the border to a file that may hold anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if reason:
        raise DataError(f"{path} holds no embeddings that clipq wrote: {reason}. Make it again with `clipq embed`.")
    return found


def about_file(path: Path) -> dict[str, Any]:
    """What a file of `save_embeddings` says of itself. Raises `DataError` as `read_file` does."""
    if path.suffix not in _FORMATS:
        raise DataError(f"cannot read {path}: the ending says the format; known: {', '.join(FORMATS)}.")
    try:
        found = _FORMATS[path.suffix].about(path)
        reason = "" if isinstance(found, dict) else "what it says of itself is no table"
    except Exception as error:  # the border to a file that may hold anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if reason:
        raise DataError(f"{path} holds no embeddings that clipq wrote: {reason}. Make it again with `clipq embed`.")
    return found


def _about_safetensors(path: Path) -> Any:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("it is cut off, or no safetensors file")
        return json.loads(json.loads(file.read(length))["__metadata__"]["clipq"])


def _about_npy(path: Path) -> Any:
    return json.loads(beside(path)[1].read_text(encoding="utf-8"))


def _origin(about: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in about["ranges"].items() if key != "sha256"}


def _read_safetensors(path: Path) -> tuple:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {})["clipq"])
        keys = [key for key in file.keys() if key.startswith("ranges.")]  # noqa: SIM118 (it is no mapping)
        tensors = {key.removeprefix("ranges."): file.get_tensor(key) for key in keys}
        return file.get_tensor("embeddings"), about.pop("names"), about, tensors


def _read_npy(path: Path) -> tuple:
    import numpy
    import torch
    from safetensors.torch import load_file

    names, rest, ranges = beside(path)
    lines = names.read_text(encoding="utf-8", errors="surrogateescape").removesuffix("\n").split("\n")
    about = json.loads(rest.read_text(encoding="utf-8"))
    tensors = load_file(ranges) if "ranges" in about else {}
    matrix = torch.from_numpy(numpy.load(path, mmap_mode="c", allow_pickle=False))  # as safetensors does it
    return matrix, lines, about, {key.removeprefix("ranges."): value for key, value in tensors.items()}


def damage(found: Embeddings) -> str:
    """What does not fit together, of a file that may come from anybody; "" if all does."""
    if found.dtype not in KINDS:
        return f"its dtype is {found.dtype!r}, which this version does not know"
    kind, shape = KINDS[found.dtype], list(found.matrix.shape)
    if str(found.matrix.dtype) != f"torch.{kind.stored}" or len(shape) != 2 or shape[0] != len(found.names):
        return f"{len(found.names)} names and a matrix of {found.matrix.dtype} {shape}, which is to be {found.dtype}"
    if kind.ranged != (found.ranges is not None):
        return f"{found.dtype} vectors {'without' if kind.ranged else 'with'} ranges"
    if found.ranges is None:
        return ""
    width = found.ranges.width
    if shape[1] != (-(-width // 8) if kind.stored == "uint8" else width):
        return f"the ranges are of width {width}, the matrix is {shape}"
    return "" if found.ranges.described() == found.about["ranges"] else "the ranges are not those of their sha256"


@dataclass(frozen=True)
class _Format:
    """How a file is written (what `about` says as JSON, at a path), and read: the matrix, names, about and ranges.

    about: what it says of itself, without the rows.
    """

    save: Callable[[Embeddings, dict[str, Any], Path], None]
    read: Callable[[Path], tuple]
    about: Callable[[Path], Any]


_FORMATS: Mapping[str, _Format] = {
    ".safetensors": _Format(_save_safetensors, _read_safetensors, _about_safetensors),
    ".npy": _Format(_save_npy, _read_npy, _about_npy),
    ".parquet": _Format(save_parquet, read_parquet, about_parquet),
}
FORMATS = tuple(_FORMATS)
