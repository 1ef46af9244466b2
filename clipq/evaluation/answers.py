"""What a model answered, image by image: kept beside a result, so that a later run can be compared with it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ResultError
from ..resources import output_path

if TYPE_CHECKING:
    import torch

_KEYS = ("labels", "top1", "top5", "images", "classes")


@dataclass(frozen=True)
class Answers:
    """The images of `keys` (those that could be read), in the order of the data.

    top1: [n] the class answered. top5: [n] whether the label is among the first five (empty below 5 classes).
    images, classes: [n, D] and [classes, D] unit-length embeddings.
    """

    task: str
    task_version: int
    digest: str  # of all the data, broken images included
    keys: tuple[str, ...]
    labels: torch.Tensor
    top1: torch.Tensor
    top5: torch.Tensor
    images: torch.Tensor
    classes: torch.Tensor

    @property
    def correct(self) -> torch.Tensor:
        """[n] bool."""
        return self.top1 == self.labels

    def save(self, path: str | os.PathLike[str]) -> None:
        """One `.safetensors` file. Raises `OutputError` if it cannot be written."""
        from safetensors.torch import save_file

        about = {"task": self.task, "task_version": self.task_version, "digest": self.digest, "keys": self.keys}
        tensors = {name: getattr(self, name).contiguous() for name in _KEYS}
        with output_path(path) as temporary:
            save_file(tensors, temporary, metadata={"answers": json.dumps(about)})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Answers:
        """Read a saved file. Raises `ResultError` naming it if it is missing, damaged or something else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(Path(path), framework="pt") as file:
                about = json.loads((file.metadata() or {})["answers"])
                tensors = {name: file.get_tensor(name) for name in _KEYS}
            answers = cls(**{**about, "keys": tuple(about["keys"])}, **tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ResultError(
                f"cannot read the answers {path}: {error}; evaluate the baseline again, or give the model itself"
            ) from error
        if reason := answers._damage():
            raise ResultError(f"{path} is damaged: {reason}; evaluate the baseline again")
        return answers

    def _damage(self) -> str:
        """What cannot be, of a file that may come from anybody; "" if all fits together."""
        n, classes = len(self.keys), len(self.classes) if self.classes.ndim == 2 else 0
        if not all(isinstance(key, str) for key in self.keys):
            return "its keys are not names"
        for name, kind, shape in (
            ("labels", "int64", [(n,)]),
            ("top1", "int64", [(n,)]),
            ("top5", "bool", [(n,), (0,)]),
            ("images", "float32", [(n, self.classes.shape[-1] if classes else 0)]),
            ("classes", "float32", [self.classes.shape if classes else ()]),
        ):
            found = getattr(self, name)
            if tuple(found.shape) not in map(tuple, shape) or str(found.dtype) != f"torch.{kind}":
                return f"{name} is {found.dtype} {list(found.shape)}, which does not fit {n} images"
        bad = any(bool(((one < 0) | (one >= classes)).any()) for one in (self.labels, self.top1))
        return "a label is no class" if bad else ""
