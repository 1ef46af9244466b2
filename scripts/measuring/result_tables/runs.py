"""Runs against peers, sorted: the newest of each processor and model is shown, who was set up wrongly is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from peers.trust import misconfigured

from .markdown import read

Run = dict[str, Any]
CLIPQ, EAGER = "clipq int8", "torch fp32"
"""Names of the yardsticks of every run."""


def runs(folder: Path) -> list[Run]:
    """Every line of every `peers-*.jsonl`, in the order in which they were measured, without wrong set-ups."""
    lines = [line for path in sorted(folder.glob("peers-*.jsonl")) for line in read(path)]
    return [without_wrong_set_ups(line) for line in sorted(lines, key=age)]


def age(run: Run) -> tuple[tuple[int, ...], str]:
    """By version first: a newer run of an older version says less."""
    version = run["environment"]["versions"]["clipq"]
    return tuple(map(int, re.findall(r"\d+", version)[:3])), run["date"]


def processor(run: Run) -> tuple[str, ...]:
    """Which kind of machine: name, instructions, threads."""
    found = run["environment"]
    return (found["processor"], *found["features"], run["model"]["kernel_path"], str(found["threads"]))


def by_processor(found: Iterable[Run]) -> list[dict[str, list[Run]]]:
    """For each processor, that of the newest run first, the runs of each model; the oldest come first."""
    groups: dict[tuple[str, ...], dict[str, list[Run]]] = {}
    for run in found:
        groups.setdefault(processor(run), {}).setdefault(run["model"]["name"], []).append(run)
    newest = {key: max(age(run) for same in models.values() for run in same) for key, models in groups.items()}
    return [groups[key] for key in sorted(groups, key=newest.__getitem__, reverse=True)]


def without_wrong_set_ups(run: Run) -> Run:
    """What `bench_peers` does now, done to runs of before it did: the rows are left out, the reason is kept."""
    reasons = misconfigured(run["rows"], EAGER, [CLIPQ])
    return {
        **run,
        "rows": [row for row in run["rows"] if row["contestant"] not in reasons],
        "failures": [failure for failure in run["failures"] if failure["contestant"] not in reasons],
        "contestants": [dropped(one, reasons.get(one["name"])) for one in run["contestants"]],
    }


def dropped(contestant: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return contestant if reason is None else {**contestant, "status": "dropped", "reason": reason, "memory": None}


def cell(run: Run, where: tuple[str, str, int]) -> dict[str, dict[str, Any]]:
    """The rows of one tower, input and batch size by contestant."""
    rows: Sequence[dict[str, Any]] = run["rows"]
    return {row["contestant"]: row for row in rows if (row["tower"], row["input"], row["batch_size"]) == where}
