"""clipq int8 and everyone else: for each processor and model for eval/SPEED.md, in short for README.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .markdown import instructions, machine, table
from .runs import CLIPQ, EAGER, Run, by_processor, cell, runs

INPUT_NAMES = {"captions": "captions of mixed length", "full": "every token of the context in use"}

SHORT_CELLS = {
    "image, batch 1": ("image", "images", 1),
    "image, batch 32": ("image", "images", 32),
    "caption, batch 1": ("text", "captions", 1),
    "captions, batch 32": ("text", "captions", 32),
}
SHORT_ROWS = (CLIPQ, EAGER, "torch bf16", "ONNX Runtime", "OpenVINO")
"""Contestants; where none has such a name, the fastest whose name begins so."""


def pages(folder: Path) -> str:
    """The newest run of each processor and model; nothing where there is none."""
    parts = []
    for models in by_processor(runs(folder)):
        (first, *_), *_ = models.values()
        environment = first["environment"]
        isa = instructions(first["model"]["kernel_path"])
        parts.append(f"## {environment['processor']}, {isa}, {environment['threads']} threads")
        parts += [f"### {name}\n\n{peer_table(found[-1])}{earlier(found)}" for name, found in models.items()]
    return "\n\n".join(parts)


def peer_table(run: Run) -> str:
    """A table for each tower and input, then who is not in them and why."""
    rows, one = run["rows"], run["model"]
    parts = [f"{heading(run)} Memory is the peak of a fresh process (in brackets: its libraries alone)."]
    for tower, kind in dict.fromkeys((row["tower"], row["input"]) for row in rows):
        here = [row for row in rows if (row["tower"], row["input"]) == (tower, kind)]
        parts.append(f"{tower.capitalize()} tower, {INPUT_NAMES.get(kind, kind)}:\n\n{peer_rows(run, here)}")
    return "\n\n".join([*parts, *absent(run), f"Kernel {one['kernel_path']}; {libraries(run)}."])


def heading(run: Run) -> str:
    """What was measured, when and how, and whether the machine was quiet."""
    weights = "Random weights. " if run["weights"] == "random" else ""
    place = run.get("machine") or machine(run["environment"])
    noisy = f" The machine was not quiet ({'; '.join(run['noisy'])})." if run.get("noisy") else ""
    return (
        f"{weights}Milliseconds an item (range), and how many times clipq int8's time that is; medians of "
        f"{run['runs']} samples, in turns. clipq {of(run)}; {place}.{noisy}"
    )


def of(run: Run) -> str:
    """Version, day and, where it is known, commit."""
    commit = f", commit {run['commit']}" if run.get("commit") else ""
    return f"{run['environment']['versions']['clipq']} on {run['date'][:10]}{commit}"


def libraries(run: Run) -> str:
    versions = {name: v for one in run["contestants"] for name, v in one["versions"].items() if v}
    return ", ".join(f"{name} {versions[name]}" for name in sorted(versions) if name != "clipq")


def peer_rows(run: Run, rows: Sequence[dict[str, Any]]) -> str:
    """One line a contestant, one column a batch size."""
    sizes = sorted({row["batch_size"] for row in rows})
    head = ("", *(f"batch {size}" for size in sizes), "cosine to fp32", "memory, MB")
    lines = []
    for one in run["contestants"]:
        own = {row["batch_size"]: row for row in rows if row["contestant"] == one["name"]}
        if own:
            cosines = [row["cosine"]["mean"] for row in own.values() if row["cosine"]]
            near = f"{min(cosines):.5f}" if cosines else ""
            lines.append([one["name"], *(peer_cell(own.get(size)) for size in sizes), near, memory(one["memory"])])
    return table(head, lines)


def peer_cell(row: dict[str, Any] | None) -> str:
    """Time, range, ratio, and which of a contestant's settings was the fastest."""
    if row is None:
        return "failed"
    median, low, high = (row["ms"][key] / row["batch_size"] for key in ("median", "min", "max"))
    ratio = "" if row["ratio"] is None else f", {row['ratio']:.2f} x"
    setting = f", {row['setting']}" if row["other_settings_ms"] else ""
    return f"{median:.2f} ({low:.2f}-{high:.2f}){ratio}{setting}"


def memory(found: dict[str, float] | None) -> str:
    return f"{found['peak'] / 1e6:.0f} ({found['idle'] / 1e6:.0f})" if found else ""


def absent(run: Run) -> Iterable[str]:
    """A sentence on who is not in the tables and one on what failed, with the reasons."""
    out = ("skipped", "dropped")
    skipped = [f"{one['name']} ({one['reason']})" for one in run["contestants"] if one["status"] in out]
    failed = dict.fromkeys(f"{one['contestant']}, {one['tower']} ({one['error']})" for one in run["failures"])
    for word, names in (("Skipped", skipped), ("Failed", failed)):
        if names:
            yield f"{word}: {'; '.join(names)}."


def earlier(found: Sequence[Run]) -> str:
    """A sentence on each older run on the same kind of processor: what clipq took in it."""
    return "".join(f"\n\nAnother run on this kind of processor: {own_times(run)}" for run in reversed(found[:-1]))


def own_times(run: Run) -> str:
    times: dict[str, list[str]] = {}
    for row in run["rows"]:
        if row["contestant"] == CLIPQ:
            each = f"{row['ms']['median'] / row['batch_size']:.2f} (batch {row['batch_size']})"
            times.setdefault(INPUT_NAMES.get(row["input"], row["input"]), []).append(each)
    said = "; ".join(f"{kind} {', '.join(each)}" for kind, each in times.items())
    place = f", {run['machine']}" if "machine" in run else ""
    return f"clipq int8 {of(run)}{place}, in ms an item: {said}."


def short_table(folder: Path, model: str = "ViT-B-32") -> str:
    """The newest run of `model`: clipq, torch, and the best that ONNX Runtime and OpenVINO can do in each cell."""
    of_model = [run for run in runs(folder) if run["model"]["name"] == model]
    if not of_model:
        return f"No run of {model} in eval/results yet."
    run = of_model[-1]
    here = {name: cell(run, where) for name, where in SHORT_CELLS.items()}
    rows = [[name, *(short_cell(name, found) for found in here.values())] for name in SHORT_ROWS]
    isa, environment = instructions(run["model"]["kernel_path"]), run["environment"]
    place = f"{environment['processor']} with {isa}, {environment['threads']} threads; clipq {of(run)}"
    noisy = " The machine was not quiet." if run.get("noisy") else ""
    return f"{table(('ms an item', *here), rows)}\n\n{model}, {place}.{noisy}"


def short_cell(name: str, found: dict[str, dict[str, Any]]) -> str:
    """Time, how many times clipq's, whose it is, and how close to fp32."""
    rows = [found[name]] if name in found else [row for other, row in found.items() if other.startswith(f"{name} ")]
    if not rows:
        return ""
    best = min(rows, key=lambda row: row["ms"]["median"])
    time = f"{best['ms']['median'] / best['batch_size']:.1f}"
    if name == CLIPQ:
        return f"**{time}**; {best['cosine']['mean']:.5f}"
    kind = "" if best["contestant"] == name else f", {best['contestant'].removeprefix(name).strip()}"
    near = "" if name == EAGER else f"; {best['cosine']['mean']:.5f}"
    return f"{time} ({best['ratio']:.1f} x){kind}{near}"
