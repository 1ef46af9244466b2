"""The result of one evaluation: one line of JSON."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..description import precision_name
from ..errors import ResultError
from ..inputs.images import unlike_a_file
from ..resources import append_line
from .lines import checked_line
from .report import as_text

if TYPE_CHECKING:
    from .answers import Answers

FORMAT = 1


@dataclass(frozen=True)
class Result:
    """What was measured, with everything needed to measure it again. All shares are in [0, 1].

    model: name, precision per tower, source, fingerprint (sha256 of what it computes with), kernel_path, device,
    weight_bytes (absent from older lines).
    data: layout and digest (sha256 of keys, labels and sizes). n: images read; `broken` names the others.
    metrics: top1, top1_interval, top5, mean_per_class_recall (empty for fidelity).
    comparison, baseline, towers: only with a baseline, see `comparison.comparison` and `comparison.towers`.
    environment: versions, processor, cores, threads, processes. seconds: all of it, the baseline included.
    images_per_second: this model's, reading and preprocessing included (None if taken from an earlier run).
    answers: what was answered per image; not part of the line, `append` keeps it beside.
    """

    task: str
    task_version: int
    n: int
    n_classes: int
    limit: int | None
    model: dict
    data: dict
    metrics: dict
    broken: dict
    environment: dict
    seconds: float
    images_per_second: float | None
    date: str  # ISO 8601, UTC
    baseline: dict | None = None
    comparison: dict | None = None
    towers: list[dict] | None = None
    answers_file: str | None = None
    format: int = FORMAT
    answers: Answers | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> str:
        """One line, keys in a fixed order."""
        table = asdict(replace(self, answers=None))
        del table["answers"]
        return json.dumps(table, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Result:
        """Raises `ResultError` if the line is no result, or one of a newer format."""
        table = checked_line(line, FORMAT, [one.name for one in fields(cls) if one.name != "answers"])
        return cls(**table)

    def append(self, path: str | os.PathLike[str], answers: bool = True) -> Result:
        """Add this result as a line to `path`, whole or not at all, and return it as it stands there.

        answers: also keep the per-image answers and embeddings (4 bytes x width per image) in the folder
        `<path>.answers`, which `baseline=path` needs later. Raises `OutputError` if that cannot be written.
        """
        path, result = Path(path), self
        if answers and self.answers is not None:
            name = f"{path.name}.answers/{hashlib.sha256(self.to_json().encode()).hexdigest()[:16]}.safetensors"
            self.answers.save(path.parent / name)
            result = replace(self, answers_file=name)
        append_line(path, result.to_json())
        return result

    def __str__(self) -> str:
        """A table for reading, with the comparison if there is one."""
        return as_text(self)


def read_results(path: str | os.PathLike[str]) -> list[Result]:
    """The results of a file, oldest first. Raises `ResultError` naming the file and the line that cannot be read."""
    if reason := unlike_a_file(path):
        raise ResultError(f"cannot read the results {path}: {reason}")
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"cannot read the results {path}: {error}") from error
    results = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            results.append(Result.from_json(line))
        except ResultError as error:
            raise ResultError(f"line {number} of {path}: {error}") from error
    return results


def read_baseline(path: str | os.PathLike[str], task: str) -> Result:
    """The newest fp32 result of `task` in a file, with its per-image answers. Raises `ResultError` if there is none."""
    found = read_results(path)
    fitting = [one for one in found if one.task == task and set(one.model["precision"].values()) == {"fp32"}]
    if not fitting:
        held = ", ".join(sorted({f"{one.task} ({precision_name(one.model)})" for one in found})) or "nothing"
        raise ResultError(f"{path} has no fp32 result of the task {task!r}; it holds {held}")
    return with_answers(fitting[-1], Path(path).parent)


def with_answers(result: Result, folder: Path | None = None) -> Result:
    """The result with its answers, read from `folder` if need be. Raises `ResultError` if there are none."""
    if result.answers is not None:
        return result
    if result.answers_file is None or folder is None:
        raise ResultError(
            f"the result of {result.model['name']} on {result.task} comes without per-image answers, so nothing can be "
            "compared with it; give the path of a result file that kept them (append(path, answers=True)), or the model"
        )
    from .answers import Answers

    return replace(result, answers=Answers.read(_inside(folder, result.answers_file)))


def _inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused if the name of a foreign file points out of the folder."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise ResultError(f"the answers file {name!r} lies outside the folder of its result; keep them together")
    return folder / path
