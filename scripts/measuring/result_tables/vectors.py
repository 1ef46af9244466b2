"""What is found when embeddings are kept as float16, int8 or bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .markdown import percent, read, table

TITLES = {"clipq-tiny": "clipq-tiny", "deit-clip": "DeiT-Tiny CLIP"}
"""The files `vectors-NAME.jsonl` that are shown, in order, and what their models are called."""

CELLS = {
    ("drawings", "image"): "drawings by drawings",
    ("drawings", "text"): "drawings by names",
    ("photos", "image"): "photos by photos",
    ("photos", "text"): "photos by names",
}
"""What is searched, and what with."""

ALSO_OWN = ("int8-per-dimension, `queries`", "ubinary")
"""Shown with the ranges of the searched set too: what `--ranges` of a float32 file brings."""

Line = dict[str, Any]


def tables(folder: Path) -> str:
    """A table a model, the newest line of each cell."""
    found = {name: current(folder / f"vectors-{name}.jsonl") for name in TITLES}
    return "\n\n".join(model_table(TITLES[name], cells) for name, cells in found.items() if cells)


def current(path: Path) -> dict[tuple[str, str], Line]:
    """The newest line of each cell, of the newest model; lines of a made-up offset are none."""
    lines = [line for line in read(path) if not line["offset"]] if path.exists() else []
    lines.sort(key=lambda line: line["date"])
    newest = [line for line in lines if line["model"]["fingerprint"] == lines[-1]["model"]["fingerprint"]]
    found = {(line["set"], line["queries"]): line for line in newest}
    return {cell: found[cell] for cell in CELLS if cell in found}


def model_table(title: str, cells: dict[tuple[str, str], Line]) -> str:
    lines = list(cells.values())
    first = lines[0]
    head = ("kept as", "bytes", *(CELLS[cell] for cell in cells))
    rows = [table_row(lines, row["way"], own=False) for row in first["rows"] if not is_own(row)]
    rows += [table_row(lines, way, own=True) for way in ALSO_OWN]
    precision = "/".join(dict.fromkeys(first["model"]["precision"].values()))
    sizes = ", ".join(f"{line['n_queries']} by {line['n']}" for line in lines)
    about = f"Width {first['width']}; queries by rows: {sizes}; clipq {first['environment']['versions']['clipq']}."
    return f"**{title} in {precision}: recall@{first['k']}.** {about}\n\n{table(head, rows)}"


def is_own(row: Line) -> bool:
    return row["ranges"] == "the set itself"


def table_row(lines: Sequence[Line], way: str, own: bool) -> list[str]:
    found = [next(row for row in line["rows"] if row["way"] == way and is_own(row) == own) for line in lines]
    name = f"{way}, ranges of the set" if own else way
    return [name, str(found[0]["bytes"]), *(percent(row["recall"]) for row in found)]
