"""`clipq.runtime`: from nothing to the first embedding, its calls beside `clipq.Model`'s, and files to vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .markdown import machine, read, table

_START, _FILES, _COSTS = "start-vit-b-32.jsonl", "files-vit-b-32.jsonl", "costs-vit-b-32.jsonl"


def _range(values: dict[str, float], digits: int) -> str:
    low, high = values["min"], values["max"]
    return f"{values['median']:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def start_table(folder: Path) -> str:
    """Seconds and memory up to the first embedding, in fresh processes."""
    result = read(folder / _START)[-1]
    head = ("from nothing to the first embedding", "seconds (range)", "peak memory, MB")
    rows = [
        [f"`{way['way']}`", _range(way["seconds"], 2), f"{way['peak']['median'] / 1e6:.0f}"] for way in result["ways"]
    ]
    about = f"ViT-B/32, random weights, files in the system's cache; {result['runs']} processes each, in turns"
    return f"{table(head, rows)}\n\n{about}; {machine(result['environment'])}."


def calls_table(folder: Path) -> str:
    """Milliseconds of the runtime's calls beside those of the whole package, in one process."""
    result = read(folder / _START)[-1]
    head = ("tower", "batch", "`clipq.runtime`, ms (range)", "`clipq.Model`, ms (range)", "least cosine between")
    rows = [
        [row["tower"], str(row["batch_size"]), _range(row["ms"], 2), _range(row["model_ms"], 2), f"{row['cosine']:.8f}"]
        for row in result["calls"]
    ]
    return table(head, rows)


def files_table(folder: Path) -> str:
    """Pictures and captions a second from files to normalized vectors; of each set its newest run."""
    results = read(folder / _FILES)
    newest = {row["set"]: (row, result) for result in results for row in result["rows"]}.values()
    sets, runs = [row for row, _ in newest], {result["runs"] for _, result in newest}
    names = list(dict.fromkeys(name for row in sets for name in row["per_second"]))
    head = ("a second (range)", *(f"{row['set']}, {row['rows']}" for row in sets))
    rows = [[name, *(_rate(row, name) for row in sets)] for name in names]
    where = f"ViT-B/32, random weights; medians of {' or '.join(map(str, sorted(runs)))} passes in turns"
    where = f"{where}; {machine(results[-1]['environment'])}."
    return f"{table(head, rows)}\n\n{where}"


def _rate(row: dict[str, Any], name: str) -> str:
    if name not in row["per_second"]:
        return ""
    times = [row["rows"] / seconds for seconds in row["seconds"][name]]
    return f"{row['per_second'][name]:.1f} ({min(times):.1f}-{max(times):.1f})"


def costs_table(folder: Path) -> str:
    """ViT-B/32 in every precision: the file, milliseconds a call, and how many times as fast as fp32 that is."""
    results = read(folder / _COSTS)
    keys = [(row["tower"], row["batch_size"]) for row in results[0]["rows"]]
    head = ("precision", "MB of the file", *(f"{tower}, batch {size}: ms; of fp32's speed" for tower, size in keys))
    rows = [
        [f"`{one['precision']}`", f"{one['bytes'] / 1e6:.0f}", *(_beside_fp32(row) for row in one["rows"])]
        for one in results
    ]
    about = "ViT-B/32, random weights; medians, fp32 in turns with each"
    return f"{table(head, rows)}\n\n{about}; {machine(results[0]['environment'])}."


def _beside_fp32(row: dict[str, Any]) -> str:
    return f"{row['ms']['median']:.1f}; {row['speedup']:.2f} x"
