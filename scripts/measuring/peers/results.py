"""What a run leaves: one line of JSON, and tables on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.machine import cpu_flags

from .measuring import SAMPLE_SECONDS
from .trust import SPREAD, noisy_cells

if TYPE_CHECKING:
    from .racing import Race

_FLAGS = {
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
}


def described(race: Race, inputs: dict[str, Any], weights: str, seconds: float) -> dict[str, Any]:
    """The result of a run, ready for JSON."""
    import clipq
    from clipq.description import described_environment, described_model
    from clipq.work.processes import Processes

    model = described_model(clipq.load(race.workspace.file("int8.safetensors")))
    environment = described_environment(Processes())
    return {
        "what": f"{model['name']} against peers",
        "weights": weights,
        "model": model,
        "inputs": inputs,
        "contestants": race.entries(),
        "rows": race.rows,
        "failures": race.failures,
        "noisy": noisy_cells(race.rows),
        "runs": race.runs,
        "sample_seconds": SAMPLE_SECONDS,
        "environment": {**environment, "threads": race.workspace.threads, "features": sorted(_FLAGS & cpu_flags())},
        "seconds": round(seconds, 1),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def append(result: dict[str, Any], path: Path, accept_noise: bool = False) -> None:
    """Add the result as a line to `path`, which is at every moment what it was before or complete.

    Raises `ClipqError` for a run that was too noisy to be compared with others, unless `accept_noise`.
    """
    from clipq.errors import ClipqError
    from clipq.resources import atomic_path

    if result["noisy"] and not accept_noise:
        raise ClipqError(
            f"not added to {path}: the samples of the fastest vary by over {100 * SPREAD:.0f} % between quartiles, so "
            f"something else was running ({'; '.join(result['noisy'])}). Run it again on a quiet machine, or with "
            "--accept-noise."
        )
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    with atomic_path(path) as temporary:
        temporary.write_text(f"{old}{json.dumps(result, allow_nan=False)}\n", encoding="utf-8")


def show(result: dict[str, Any]) -> None:
    """Tables on the terminal: times, then memory, then who is missing and why."""
    from clipq.cli.show import size, table

    head = ("contestant", ">ms an item", ">min-max", ">x clipq's time", ">cosine mean", ">min", "setting")
    for where in dict.fromkeys((row["tower"], row["input"], row["batch_size"]) for row in result["rows"]):
        rows = [row for row in result["rows"] if (row["tower"], row["input"], row["batch_size"]) == where]
        table(head, [_cells(row) for row in rows], title=f"{where[0]} tower, {where[1]}, batch {where[2]}")
    found = [(one["name"], one["memory"]) for one in result["contestants"] if one["memory"]]
    columns = ("process", ">load s", ">libraries", ">loaded (peak)", ">largest batch (peak)")
    if found:
        table(columns, [(n, f"{m['load_seconds']:.1f}", *(size(m[k]) for k in _MEMORY)) for n, m in found])
    for line in notes(result):
        print(line)


_MEMORY = ("idle", "loaded", "peak")


def notes(result: dict[str, Any]) -> Iterator[str]:
    """Where the numbers come from, and what is not in them."""
    machine = result["environment"]
    features = ", ".join(machine["features"])
    yield f"{machine['processor']} ({features}), {machine['threads']} threads; {result['model']['kernel_path']}."
    yield f"Medians of {result['runs']} samples, in turns; {result['seconds']:.0f} s in all."
    if result["weights"] == "random":
        yield "Random weights: times and memory are the real model's, a cosine says little about one that learned."
    for one in result["contestants"]:
        if one["status"] in ("skipped", "dropped"):
            yield f"{one['status']}: {one['name']} ({one['reason']})"
    for cell in result["noisy"]:
        yield f"noisy: {cell}"
    for failure in result["failures"]:
        yield f"failed: {failure['contestant']}, {failure['tower']}: {failure['error']}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ms, size = row["ms"], row["batch_size"]
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    near = ("", "") if row["cosine"] is None else tuple(f"{row['cosine'][key]:.5f}" for key in ("mean", "min"))
    spread = f"{ms['min'] / size:.2f}-{ms['max'] / size:.2f}"
    return (row["contestant"], f"{ms['median'] / size:.2f}", spread, ratio, *near, row["setting"])
