"""The steps of image towers beside the machine's peak: what `bench_native.py` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .markdown import instructions, read, table

Run = dict[str, Any]

PRODUCTS = {
    "qkv": "queries, keys, values",
    "out_proj": "output projection",
    "fc1": "first of the MLP, GELU",
    "fc2": "second of the MLP",
}
"""Int8 products: their rate is told by the peak of the dot products."""

VALUES = {
    "normalize": "LayerNorm to int8",
    "quantize": "attention's result to int8",
    "quantize_hidden": "GELU's result to int8",
}
PARTS = {
    "cut_patches": "patches cut",
    "patch_product": "patches' product",
    "join_tokens": "tokens joined, first norm",
    "last_norm_and_projection": "last norm, projection",
}


def tables(folder: Path) -> str:
    """One table for each processor and model, the newest run of each."""
    path = folder / "native-steps.jsonl"
    if not path.is_file():
        return "Not measured yet."
    newest: dict[tuple[str, str, str], dict[tuple[int, int], Run]] = {}
    for run in sorted(read(path), key=lambda run: run["date"]):
        newest.setdefault((run["processor"], run["path"], run["model"]), {})[run["threads"], run["batch"]] = run
    return "\n\n".join(_table(*key, runs) for key, runs in newest.items())


def _table(processor: str, kernel: str, model: str, runs: dict[tuple[int, int], Run]) -> str:
    found = [runs[key] for key in sorted(runs)]
    head = ["step", *(f"{_threads(run)}, batch {run['batch']}" for run in found)]
    rows = [
        _row("the whole tower", found, _whole),
        *(_row(name, found, lambda run, step=step: _product(run, step)) for step, name in PRODUCTS.items()),
        _row("of it, GELU", found, lambda run: f"{_gelu(run):.1%}, {run['gelu_ns']:.2f} ns a value"),
        _row("attention", found, lambda run: _product(run, "attention")),
        *(_row(name, found, lambda run, step=step: _values(run, step)) for step, name in VALUES.items()),
        *(_row(name, found, lambda run, part=part: _part(run, part)) for part, name in PARTS.items()),
        _row("waiting, copies and the rest of the blocks", found, lambda run: f"{_rest(run):.1%}"),
        _row("weights, GB/s (memcpy's)", found, lambda run: f"{_weights(run):.1f} ({run['copy_gb'] / 2:.1f})"),
    ]  # fmt: skip
    last = found[-1]
    peaks = ", ".join(
        f"{_threads(run)} {run['peak_gops']:.0f} Gop/s" for run in {r["threads"]: r for r in found}.values()
    )
    where = f"{processor}, {instructions(kernel)}; clipq {last['version']} on {last['date'][:10]}"
    about = f"Random weights, medians; {where}. Measured peak of the dot products: {peaks}."
    return f"**{model}.** {about}\n\n{table(head, rows)}"


def _row(name: str, runs: list[Run], cell: Any) -> list[str]:
    return [name, *(cell(run) for run in runs)]


def _threads(run: Run) -> str:
    return "1 thread" if run["threads"] == 1 else f"{run['threads']} threads"


def _whole(run: Run) -> str:
    return f"**{run['ms']['median'] / run['batch']:.2f} ms a picture, {_of_peak(run):.0%} of the peak**"


def _of_peak(run: Run) -> float:
    return run["gops"] / run["ms"]["median"] * 1e3 / run["peak_gops"]


def _share(run: Run, milliseconds: float) -> float:
    """Of the time of all threads."""
    return milliseconds / run["ms"]["median"] / run["threads"]


def _product(run: Run, step: str) -> str:
    time, _, products = run["steps"][step]
    rate = 2e-6 * products / time * run["threads"] / run["peak_gops"]
    return f"{_share(run, time):.1%} at {rate:.0%} of the peak"


def _values(run: Run, step: str) -> str:
    time, _, values = run["steps"][step]
    return f"{_share(run, time):.1%}, {time * 1e6 / max(values, 1):.2f} ns a value"


def _part(run: Run, part: str) -> str:
    return f"{run['parts'][part] / run['ms']['median']:.1%}"


def _gelu(run: Run) -> float:
    return _share(run, run["gelu_ns"] * run["steps"]["fc1"][2] / run["width"] * 1e-6)


def _rest(run: Run) -> float:
    steps = sum(time for time, _, _ in run["steps"].values())
    return (run["parts"]["blocks"] - steps / run["threads"]) / run["ms"]["median"]


def _weights(run: Run) -> float:
    """What a call reads at least: all weights once."""
    return run["weight_bytes"] / run["ms"]["median"] * 1e-6
