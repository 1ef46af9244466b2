"""A result as text for people: what was measured, and what quantization cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..description import precision_name

Facts = list[tuple[str, str]]


class Measured(Protocol):
    """What a `Result` has for the reader."""

    task: str
    task_version: int
    n: int
    n_classes: int
    model: dict
    metrics: dict
    broken: dict
    seconds: float
    comparison: dict | None
    towers: list[dict] | None


def as_text(result: Measured) -> str:
    """The lines of `measured` and `cost`, and the 2x2 of towers, in aligned columns."""
    parts = [measured(result), cost(result)]
    texts = ["\n".join(_aligned(part)) for part in parts if part]
    if cells := tower_cells(result):
        texts.append("\n".join(_aligned([TOWER_COLUMNS, *cells])))
    return "\n\n".join(texts)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


TOWER_COLUMNS = ("image tower", "text tower", "top-1", "agreement")


def tower_cells(result: Measured) -> list[tuple[str, ...]]:
    """The rows of the 2x2 of towers; empty without a baseline."""
    return [(cell["image"], cell["text"], *_shares(cell)) for cell in result.towers or ()]


def measured(result: Measured) -> Facts:
    """Names and values: the model, the task, its metrics, what was left out, and how long it took."""
    metrics, model = result.metrics, result.model
    rows = [("model", f"{model['name']} ({precision_name(model)})"), ("task", _task(result))]
    if "top1" in metrics:  # fidelity has no labels, and so no metrics
        rows.append(("top-1", f"{_percent(metrics['top1'])} (95 % interval {_between(metrics['top1_interval'])})"))
        rows.append(("top-5", "" if metrics["top5"] is None else _percent(metrics["top5"])))
        rows.append(("mean per-class recall", _percent(metrics["mean_per_class_recall"])))
    rows.append(("broken images", str(result.broken.get("count") or "")))
    rows.append(("kernel path", str(model.get("kernel_path", ""))))
    rows.append(("time", f"{result.seconds:.1f} s"))
    return [row for row in rows if row[1]]


def cost(result: Measured) -> Facts:
    """Names and values of the comparison; empty without a baseline."""
    found = result.comparison or {}
    cosines = [
        (f"{what} cosine to fp32", _cosine(found[f"{what}_cosine"]))
        for what in ("image", "text")
        if found.get(f"{what}_cosine")
    ]
    return [*(_drop(found) if "drop_points" in found else []), *cosines]


def _drop(found: dict[str, Any]) -> Facts:
    low, high = found["drop_interval_points"]
    recovery = found["recovery"]
    return [
        ("fp32 top-1", _percent(found["baseline_metrics"]["top1"])),
        ("drop", f"{found['drop_points']:.2f} points (95 % interval {low:.2f} to {high:.2f})"),
        ("McNemar's p", f"{found['mcnemar_p']:.3g} ({found['lost']} lost, {found['gained']} gained)"),
        ("same top-1 answer", _percent(found["agreement"])),
        ("recovery", "undefined" if recovery is None else _percent(recovery)),
    ]


def _task(result: Measured) -> str:
    classes = f", {result.n_classes} classes" if result.n_classes else ""
    return f"{result.task} version {result.task_version}: {result.n} images{classes}"


def _shares(cell: dict[str, Any]) -> tuple[str, str]:
    return _percent(cell["top1"]), _percent(cell["agreement"])


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _between(interval: Sequence[float]) -> str:
    return " to ".join(map(_percent, interval))


def _cosine(found: dict[str, float]) -> str:
    return f"mean {found['mean']:.5f}, 1st percentile {found['p1']:.5f}, min {found['min']:.5f}"
