"""Embeddings as a file: a matrix with the names of its rows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError
from .resources import check_output_path, output_path

if TYPE_CHECKING:
    import torch

FORMATS = (".safetensors", ".npy")
_MAX_HEADER = 90_000_000  # bytes of names; a safetensors header ends at 100 MB


@dataclass(frozen=True)
class Embeddings:
    """`matrix` [n, D] float32, the `names` of its rows, the `broken` inputs that have none with the reason, and `about`
    the model. `kept`: the folder of this run's finished shards, which is of no more use once the matrix is saved.
    """

    names: tuple[str, ...]
    matrix: torch.Tensor
    broken: dict[str, str]
    about: dict[str, Any]
    kept: Path | None = None


def save_embeddings(found: Embeddings, path: str | os.PathLike[str]) -> None:
    """Write a `.safetensors` file (tensor "embeddings"; names and the rest in its metadata, as JSON under "clipq"), or

    a `.npy` file with `FILE.names.txt` (a name a line) and `FILE.json` (the rest) beside it.
    Raises `DataError` for another ending, or names that the format cannot hold, `OutputError` for a full disk.
    """
    path = Path(path)
    _check_names(path, found.names)
    rest = {"format": 1, **found.about, "broken": found.broken}
    if path.suffix == ".safetensors":
        _save_safetensors(found, rest, path)
    else:
        _save_npy(found, rest, path)


def check_output(path: Path, names: Sequence[str] = ()) -> None:
    """Raise what `save_embeddings` would: better before the work than after it.

    Also raises `OutputError` if the folder of `path` is missing: a mistyped name makes none.
    """
    _check_names(path, names)
    for one in (path, *(beside(path) if path.suffix == ".npy" else ())):
        check_output_path(one)


def beside(path: Path) -> tuple[Path, Path]:
    """The names and the rest of a `.npy` file."""
    return path.with_name(f"{path.name}.names.txt"), path.with_name(f"{path.name}.json")


def _check_names(path: Path, names: Sequence[str]) -> None:
    if path.suffix not in FORMATS:
        raise DataError(f"cannot write {path}: the ending says the format; allowed: {', '.join(FORMATS)}.")
    if path.suffix == ".npy" and (bad := next((name for name in names if "\n" in name or "\r" in name), None)):
        raise DataError(
            f"the name {bad!r} holds a line break, which a list of names cannot keep; write .safetensors instead."
        )
    if path.suffix == ".safetensors" and len(json.dumps(names)) > _MAX_HEADER:
        raise DataError(f"{len(names)} names are too long for the header of a .safetensors file; write .npy instead.")


def _save_safetensors(found: Embeddings, rest: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    metadata = {"clipq": json.dumps({**rest, "names": found.names})}
    with output_path(path) as temporary:
        save_file({"embeddings": found.matrix.contiguous()}, temporary, metadata=metadata)


def _save_npy(found: Embeddings, rest: dict[str, Any], path: Path) -> None:
    import numpy

    names, about = beside(path)
    with output_path(names) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in found.names), encoding="utf-8", errors="surrogateescape")
    with output_path(about) as temporary:
        temporary.write_text(json.dumps(rest, indent=1) + "\n", encoding="utf-8")
    with output_path(path) as temporary, temporary.open("wb") as file:
        numpy.save(file, found.matrix.numpy(), allow_pickle=False)
