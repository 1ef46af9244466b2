"""What an fp32 index is worth to a quantized model, or to another one, with and without a map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .markdown import percent, read, table

TITLES = {
    "clipq-tiny": "clipq-tiny, {n} drawings",
    "deit-clip": "DeiT-Tiny CLIP, {n} photos",
    "upgrade": "From clipq-tiny to DeiT-Tiny CLIP, {n} photos",
}
"""The files `drift-NAME.jsonl` that are shown, in order."""
COLUMNS = {
    ("image", "index", "old"): "old index",
    ("image", "sample", "new"): "embedded again",
    ("image", "sample", "mixed"): "half of it new",
    ("text", "index", "old"): "texts, old index",
}
"""The searches that are shown, by what asks, in how many rows, of which model."""
MAPPED = ("new", "map", "old index", "with the map", "texts", "with the map", "verdict")

Line = dict[str, Any]


def tables(folder: Path) -> str:
    """A pair of tables for each model: as it is, and what a map brings."""
    found = {name: current(folder / f"drift-{name}.jsonl") for name in TITLES}
    parts = [model_tables(TITLES[name], lines) for name, lines in found.items() if lines]
    return "\n\n".join([*parts, *memory(folder / "drift-rows.jsonl")])


def current(path: Path) -> list[Line]:
    """The newest line of each precision, in the order in which they were measured."""
    lines = sorted(read(path), key=lambda line: line["date"]) if path.exists() else []
    return list({line["precision"]: line for line in lines}.values())


def model_tables(title: str, lines: list[Line]) -> str:
    n = searched(lines[0]["every"], ("image", "index", "old"))["queries"]
    versions = lines[0]["environment"]["versions"]
    about = f"Every picture is a query against the others. clipq {versions['clipq']}, torch {versions['torch']}."
    head = ("new", "median cosine", *COLUMNS.values(), "recall@1 / @10")
    plain = table(head, map(plain_row, lines))
    aligned = lines[0]["aligned"]
    pairs, kept = aligned["alignment"]["pairs"], aligned["searches"][0]["queries"]
    text = f"A map fitted on {pairs} of them, compared on the other {kept}: overlap@10 before and after."
    mapped = table(MAPPED, map(map_row, lines))
    heading = f"**{title.format(n=n)}: overlap@10 with what the old vectors find.** {about}"
    return "\n\n".join([heading, plain, *shares_table(lines), text, mapped])


def shares_table(lines: list[Line]) -> list[str]:
    """What an index gives that is the old one but for a share of its rows; of int8 alone."""
    found = next((line["grown"] for line in lines if line["precision"] == "int8" and line.get("grown")), [])
    if not found:
        return []
    head = ("new rows", *(f"{100 * one['share']:.0f} %" for one in found))
    rows = [[f"{name} queries", *(percent(one[name][0]) for one in found)] for name in ("old", "new")]
    return ["Where a share of the rows is of int8, and the others are old:", table(head, rows)]


def searched(part: dict[str, Any], cell: tuple[str, str, str], aligned: bool = False) -> dict[str, Any] | None:
    """The search by new queries of a kind, in the whole index or the sample, of old, new or mixed rows.

    Where all rows were embedded again, the sample is the whole index.
    """
    of, scope, index = cell
    wanted = {"of": of, "index": index, "queries": "new", "aligned": aligned, "scope": scope}
    return next((one for one in part["searches"] if wanted.items() <= one["search"].items()), None)


def plain_row(line: Line) -> list[str]:
    every = line["every"]
    cells = [searched(every, cell) for cell in COLUMNS]
    first = cells[0]
    recalls = "" if first is None else " / ".join(f"{first['recall'][at][0]:.3f}" for at in ("1", "10"))
    cosines = every["cosines"].get("before")
    cosine = "" if cosines is None else f"{cosines['p50'][0]:.5f}"
    return [line["precision"], cosine, *map(share, cells), recalls]


def map_row(line: Line) -> list[str]:
    part = line["aligned"]
    both = [
        searched(part, cell, aligned)
        for cell in (("image", "index", "old"), ("text", "index", "old"))
        for aligned in (False, True)
    ]
    return [line["precision"], part["alignment"]["method"], *map(share, both), part["verdict"]["answer"]]


def share(cell: dict[str, Any] | None) -> str:
    """overlap@10 with its interval."""
    if cell is None:
        return ""
    value, low, high = cell["overlap"]["10"]
    return f"{percent(value)} ({100 * low:.1f}&ndash;{100 * high:.1f})"


def memory(path: Path) -> list[str]:
    """A sentence about the longest index that was searched."""
    if not path.exists():
        return []
    line = max(read(path), key=lambda one: (one["rows"], one["date"]))
    size = f"{line['rows']:,} rows of width {line['width']} ({line['index_mb']:,} MB on disk)"
    return [
        f"Over an index of {size}, with {line['queries']:,} queries, the process had {line['peak_mb']:,} MB at most, "
        f"{line['peak_mb_before']:,} MB of it before the index was opened."
    ]
