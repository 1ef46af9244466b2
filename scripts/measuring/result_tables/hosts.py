"""ViT-B/32 through clipq.Model and by the hosts' own calls, int8 beside fp32."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .markdown import machine, percent, read, table


def speed_rows(result: dict[str, Any]) -> Iterable[list[str]]:
    for row in result["rows"]:
        size, own, base = row["batch_size"], row["ms"], row["baseline_ms"]
        spread = [f"{x['median'] / size:.2f} ({x['min'] / size:.2f}-{x['max'] / size:.2f})" for x in (base, own)]
        yield [result["model"]["source"]["host"], row["tower"], str(size), *spread, f"{row['speedup']:.2f} x"]


def speed_table(path: Path) -> str:
    """Milliseconds an item of ViT-B/32, int8 beside fp32, and the sizes of the files."""
    results = read(path)
    head = ("host", "tower", "batch", "fp32 ms an item (range)", "int8 ms an item (range)", "speed-up")
    sizes = ", ".join(f"{key} {value / 1e6:.1f} MB" for key, value in results[0]["bytes"].items())
    share = percent(results[0]["coverage"]["matrix_weights"])
    about = f"Files: {sizes}; int8: {share} of the matrix weights, 100 % of the blocks'."
    kernel = results[0]["model"]["kernel_path"]
    runs = f"Random weights, captions of mixed lengths, medians of {results[0]['runs']} runs"
    where = f"{about} {runs}; {machine(results[0]['environment'])}; kernel {kernel}."
    rows = [row for result in results for row in speed_rows(result)]
    return f"**ViT-B/32 through `clipq.Model`.** {where}\n\n{table(head, rows)}"


def host_calls_table(path: Path) -> str:
    """The hosts' own calls of a quantized module: against fp32, against `clipq.Model`, and what they were in 0.2."""
    lines = read(path)
    before = {(row["host"], row["tower"], row["batch_size"]): row for row in lines if row["label"] == "0.2"}
    head = ("host", "tower", "batch", "fp32 ms (range)", "int8 ms (range)", "speed-up", "in 0.2", "of `clipq.Model`")
    rows = []
    for row in (row for row in lines if row["label"] != "0.2"):
        ms = [f"{row['ms'][who][k]:.1f}" for who in ("fp32", "host") for k in ("median", "min", "max")]
        spread = [f"{median} ({low}-{high})" for median, low, high in (ms[:3], ms[3:])]
        old = before[row["host"], row["tower"], row["batch_size"]]
        ratios = (f"{row['host_of_fp32']:.1f} x", f"{old['host_of_fp32']:.1f} x", f"{row['host_of_model']:.2f} x")
        rows.append([row["host"], row["tower"], str(row["batch_size"]), *spread, *ratios])
    where = f"{machine(lines[-1]['environment'])}; medians of {lines[-1]['runs']} samples, in turns."
    about = "Random weights, captions of mixed lengths, milliseconds a call; in brackets the range."
    return f"**ViT-B/32 by the host's own call after `clipq.quantize(module)`.** {about} {where}\n\n{table(head, rows)}"
