"""A shard of embeddings, and its file: sealed when it is written, checked before it is used again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..resources import output_path

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Shard:
    """Embeddings of the rows `indices` of a longer list; `broken` are the rows that could not be read, with reasons."""

    start: int
    indices: torch.Tensor  # [k] int64
    embeddings: torch.Tensor  # [k, D] float32
    broken: dict[int, str] = field(default_factory=dict)
    resumed: bool = False


class DamagedShard(Exception):
    """Why a kept shard cannot be used; it is done again, so no user meets this."""


def read_shard(path: Path, rows: range, key: str) -> Shard:
    """The kept shard of `rows`, of work with the identity `key`. Raises `DamagedShard` if it is anything else."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            indices, embeddings = file.get_tensor("indices"), file.get_tensor("embeddings")
        broken = {int(row): str(reason) for row, reason in json.loads(metadata.get("broken", "null")).items()}
    except Exception as error:  # the border to a file that may hold anything
        raise DamagedShard(f"it cannot be read ({' '.join(str(error).split())[:80]})") from error
    shard = Shard(rows.start, indices, embeddings, broken, resumed=True)
    if reason := _misfit(shard, rows):
        raise DamagedShard(reason)
    if metadata.get("sha256") != _seal(shard, key):
        raise DamagedShard("its contents are not those of its sha256")
    return shard


def write_shard(path: Path, shard: Shard, key: str, then: str) -> None:
    """Raises `OutputError`, which ends with `then`."""
    from safetensors.torch import save_file

    tensors = {"indices": shard.indices.contiguous(), "embeddings": shard.embeddings.contiguous()}
    metadata = {"broken": json.dumps(shard.broken), "sha256": _seal(shard, key)}
    with output_path(path, then) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _misfit(shard: Shard, rows: range) -> str:
    """What is wrong with the rows, shapes and dtypes of a shard; "" if nothing is."""
    import torch

    if shard.indices.dtype != torch.int64 or shard.embeddings.dtype != torch.float32:
        return f"its dtypes are {shard.indices.dtype} and {shard.embeddings.dtype}, not torch.int64 and torch.float32"
    if shard.indices.ndim != 1 or shard.embeddings.ndim != 2 or len(shard.indices) != len(shard.embeddings):
        return f"its shapes are {list(shard.indices.shape)} and {list(shard.embeddings.shape)}, not [k] and [k, width]"
    good = shard.indices.tolist()
    if good != sorted(good) or sorted([*good, *shard.broken]) != list(rows):
        return f"its rows are not {rows.start} to {rows.stop - 1}"
    return ""


def _seal(shard: Shard, key: str) -> str:
    """sha256 (hex) of the tensors with their shapes, the broken rows, and the identity of the work they belong to."""
    broken: Mapping[str, str] = {str(row): reason for row, reason in sorted(shard.broken.items())}
    about = [key, shard.start, list(shard.indices.shape), list(shard.embeddings.shape), broken]
    seal = hashlib.sha256(json.dumps(about).encode())
    for tensor in (shard.indices, shard.embeddings):
        seal.update(tensor.contiguous().cpu().numpy())
    return seal.hexdigest()
