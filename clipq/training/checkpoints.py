"""What a run keeps so that it can go on where it stopped, with the same numbers: tensors, and JSON beside them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ClipqWarning
from ..resources import output_path

_KEPT = "What was trained until then is kept; make room, and give the same command again to go on."
_NEWEST = 2  # checkpoints that are kept


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps: parameters and moments by name, and JSON values."""

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any] = field(default_factory=dict)


def folder_of(resume: Path, identity: Mapping[str, Any]) -> Path:
    """The folder in `resume` that only runs with the same `identity` share; it says which."""
    text = json.dumps(identity, sort_keys=True, indent=1)
    folder = resume / hashlib.sha256(text.encode()).hexdigest()[:16]
    with output_path(folder / "identity.json", _KEPT) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write it, complete or not at all, and remove all but the newest ones. Raises `OutputError`."""
    from safetensors.torch import save_file

    tensors = {name: one.detach().cpu().contiguous() for name, one in checkpoint.tensors.items()}
    metadata = {"step": str(checkpoint.step), "values": json.dumps(dict(checkpoint.values))}
    path = folder / f"step-{checkpoint.step:08d}.safetensors"
    with output_path(path, _KEPT) as temporary:
        save_file(tensors, temporary, metadata={**metadata, "sha256": _seal(tensors, metadata)})
    for old in _checkpoints(folder)[_NEWEST:]:
        with suppress(OSError):
            old.unlink()
    return path


def newest_checkpoint(folder: Path, shapes: Mapping[str, torch.Size]) -> Checkpoint | None:
    """The newest one that is whole and holds a parameter of each of `shapes`; a `ClipqWarning` names damaged ones."""
    for path in _checkpoints(folder):
        try:
            return _read(path, shapes)
        except _Damaged as damage:
            text = f"the checkpoint {path} is damaged ({damage}); the one before it is used, if there is one"
            warnings.warn(text, ClipqWarning, stacklevel=2)
    return None


class _Damaged(Exception):
    """Why a checkpoint cannot be used; no user meets this."""


def _checkpoints(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def _read(path: Path, shapes: Mapping[str, torch.Size]) -> Checkpoint:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
        step, values = int(metadata["step"]), json.loads(metadata["values"])
    except Exception as error:  # the border to a file that may hold anything
        raise _Damaged(f"it cannot be read: {' '.join(str(error).split())[:80]}") from error
    if metadata.get("sha256") != _seal(tensors, {key: metadata[key] for key in ("step", "values")}):
        raise _Damaged("its contents are not those of its sha256")
    if any(name not in tensors or tensors[name].shape != shape for name, shape in shapes.items()):
        raise _Damaged("it is of another model")
    return Checkpoint(step, tensors, values)


def _seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """sha256 (hex) of the tensors with their names, types and shapes, and of the values."""
    seal = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, one in sorted(tensors.items()):
        seal.update(f"{name}|{one.dtype}|{list(one.shape)}|".encode())
        seal.update(one.contiguous().flatten().view(torch.uint8).numpy())
    return seal.hexdigest()
