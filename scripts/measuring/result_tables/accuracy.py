"""What a precision answers, and how far that is from fp32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .markdown import machine, percent, read, table

EMBEDDED = "clipq-tiny"

TITLES = {
    "clipq-tiny-imagenet-photos": "clipq-tiny, ImageNet photos",
    "clipq-tiny-drawings": "clipq-tiny, drawings in an art style never seen in training",
    "clipq-tiny-photos": "clipq-tiny, the photos that ship with it (a demonstration, no measurement)",
    "deit-clip-imagenet-photos": "DeiT-Tiny CLIP, ImageNet photos",
}
"""What a result file is about, in the order of the tables; other files of the embedded model come after them."""

INSTEAD_OF = {"deit-clip-imagenet-photos": "clipq-tiny-imagenet-photos"}
"""Results that the short table shows only as long as there are none of the embedded model."""

PRECISIONS_OF = "deit-clip-imagenet-photos-7"
"""The results of which docs/precisions.md shows every precision."""

Result = dict[str, Any]


def current(results: Iterable[Result]) -> list[Result]:
    """The lines of the newest model, one for each precision: the newest.

    A model may have been replaced by another of the same name. The hash of its fp32 self, which each line was compared
    with, tells them apart: lines of another one than the newest line's are history.
    """
    ordered = sorted(results, key=lambda result: result["date"])
    here = [result for result in ordered if origin(result) == origin(ordered[-1])]
    newest = {tuple(sorted(result["model"]["precision"].items())): result for result in here}
    return list(newest.values())


def origin(result: Result) -> str:
    return result["baseline"]["fingerprint"]


def tasks(folder: Path) -> tuple[dict[str, list[Result]], list[str]]:
    """The lines to show by file, and the files of the embedded model that know only a model that was replaced."""
    found = {path.stem: read(path) for path in files(folder)}
    own = [result for name, lines in found.items() if name.startswith(EMBEDDED) for result in lines]
    newest = origin(max(own, key=lambda result: result["date"])) if own else None
    shown = {name: current(lines) for name, lines in found.items()}
    old = [name for name in shown if name.startswith(EMBEDDED) and origin(shown[name][0]) != newest]
    return {name: lines for name, lines in shown.items() if name not in old}, old


def files(folder: Path) -> Sequence[Path]:
    known = [path for name in TITLES if (path := folder / f"{name}.jsonl").exists()]
    return known + [path for path in sorted(folder.glob(f"{EMBEDDED}-*.jsonl")) if path.stem not in TITLES]


def title(name: str) -> str:
    return TITLES.get(name, name)


def short_table(folder: Path) -> str:
    """int8 against fp32: one line for each task; of another model only what the embedded one was not measured on."""
    shown, old = tasks(folder)
    shown = {name: lines for name, lines in shown.items() if INSTEAD_OF.get(name) not in shown}
    head = ("", "pictures", "classes", "fp32", "int8", "drop, points (95 %)", "same answer", "image cosine")
    rows = [short_row(name, result) for name, lines in shown.items() for result in lines if is_int8(result)]
    return "\n\n".join([table(head, rows), *missing(old)])


def is_int8(result: Result) -> bool:
    return set(result["model"]["precision"].values()) == {"int8"}


def short_row(name: str, result: Result) -> list[str]:
    found = result["comparison"]
    low, high = found["drop_interval_points"]
    return [
        title(name),
        str(result["n"]),
        str(result["n_classes"]),
        percent(found["baseline_metrics"]["top1"]),
        percent(result["metrics"]["top1"]),
        f"{found['drop_points']:.2f} ({low:.2f} to {high:.2f})",
        percent(found["agreement"]),
        f"{found['image_cosine']['mean']:.5f}",
    ]


def full_tables(folder: Path) -> str:
    """Every precision of every task."""
    shown, old = tasks(folder)
    return "\n\n".join([*(full_table(title(name), lines) for name, lines in shown.items()), *missing(old)])


def full_table(heading: str, results: Sequence[Result]) -> str:
    """fp32 and every precision compared with it, on one task."""
    first = results[0]
    base = first["comparison"]["baseline_metrics"]["top1"]
    head = ("precision", "top-1", "drop, points (95 %)", "agreement", "image cosine", "text cosine")
    rows = [["fp32", percent(base), "", "", "", ""], *(row(result) for result in results)]
    kernels = ", ".join(sorted({r["model"]["kernel_path"] for r in results} - {"float"}))
    versions = ", ".join(sorted({r["environment"]["versions"]["clipq"] for r in results}))
    where = f"n = {first['n']}, {first['n_classes']} classes; clipq {versions}, {machine(first['environment'])}"
    return f"**{heading}.** {where}; kernel {kernels}.\n\n{table(head, rows)}"


def precisions_table(folder: Path) -> str:
    """Every precision of one model on one task, with its size."""
    results = current(read(folder / f"{PRECISIONS_OF}.jsonl"))
    first = results[0]
    head = ("precision", "MB of weights", "top-1", "drop, points (95 %)", "same answer", "image cosine", "text cosine")
    base = ["fp32", megabytes(first["baseline"]), percent(first["comparison"]["baseline_metrics"]["top1"])]
    rows = [[*base, "", "", "", ""]]
    for result in results:
        name, *rest = row(result)
        rows.append([f"`{name}`", megabytes(result["model"]), *rest])
    where = f"n = {first['n']}, {first['n_classes']} classes; {machine(first['environment'])}"
    return f"{table(head, rows)}\n\n{where}."


def megabytes(model: dict[str, Any]) -> str:
    return f"{model['weight_bytes'] / 1e6:.1f}" if "weight_bytes" in model else ""


def row(result: Result) -> list[str]:
    """What a precision answers, and how far it is from fp32."""
    found = result["comparison"]
    low, high = found["drop_interval_points"]
    return [
        precision(result["model"]["precision"]),
        percent(result["metrics"]["top1"]),
        f"{found['drop_points']:.2f} ({low:.2f} to {high:.2f})",
        percent(found["agreement"]),
        f"{found['image_cosine']['mean']:.5f}",
        f"{found['text_cosine']['mean']:.5f}",
    ]


def precision(towers: dict[str, str]) -> str:
    names = set(towers.values())
    return names.pop() if len(names) == 1 else ", ".join(f"{tower} {name}" for tower, name in towers.items())


def missing(names: Sequence[str]) -> list[str]:
    """A sentence on results that a replaced model left behind."""
    return [f"Not measured yet with the model as it is now: {', '.join(map(title, names))}."] if names else []
