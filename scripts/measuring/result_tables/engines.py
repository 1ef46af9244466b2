"""Engines: the same bytes and how fast, memory over a long run, and what many pictures cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .markdown import machine, read, table

_FILE = "engines.jsonl"
_NOT_YET = "Not measured for this version."
_MANY = (("100 million", 1e8), ("1 billion", 1e9))


def _lines(folder: Path, part: str) -> list[dict[str, Any]]:
    """The newest line of each run of a part."""
    path = folder / _FILE
    found = [line for line in read(path) if line["what"] == part] if path.is_file() else []
    return list({(*_data(line), line["name"]): line for line in found}.values())


def _data(line: dict[str, Any]) -> tuple[str, int, int]:
    """What a run was about: only runs of the same are compared."""
    return line["model"], line["count"], line["side"]


def runs_table(folder: Path) -> str:
    """A table for each model and number of pictures that were run."""
    lines = _lines(folder, "equality")
    groups = [[line for line in lines if _data(line) == data] for data in dict.fromkeys(map(_data, lines))]
    return "\n\n".join(map(_runs_table, groups)) or _NOT_YET


def _runs_table(lines: list[dict[str, Any]]) -> str:
    """Rows a second and memory of every way, and whether its bytes are those of the first."""
    head = ("engine", "rows a second", "of one process on 2 threads", "MB of a worker", "killed", "same bytes")
    base = _rate(next((line for line in lines if (line["engine"], line["workers"]) == ("local", 1)), lines[0]))
    rows = [
        [
            line["name"],
            f"{_rate(line):.1f}",
            f"{_rate(line) / base:.2f}" if line["workers"] * line["threads"] == 2 and base else "",
            f"{line['memory']['worker']['late']:.0f}" if line.get("memory", {}).get("worker", {}).get("late") else "",
            "everything, once" if line.get("stopped") else "a worker" if line.get("killed") else "",
            "yes" if line["same_bytes"] else "NO",
        ]
        for line in lines
    ]
    first = lines[0]
    about = f"{first['count']} pictures of {first['side']} x {first['side']}, {first['model']}, without start and end"
    return f"{table(head, rows)}\n\n{about}; {machine(first['environment'])}."


def _rate(line: dict[str, Any]) -> float:
    return line.get("steady") or line["said"].get("per_second", 0.0)


def memory_table(folder: Path) -> str:
    """A long run's memory at ten places."""
    if not (lines := _lines(folder, "million")):
        return _NOT_YET
    line = lines[-1]
    log, size = line["log"], line["shard_size"]
    places = [log[round(i * (len(log) - 1) / 9)] for i in range(10)]
    head = ("minutes", "rows done", "MB of the main process", "MB of the largest worker")
    rows = [[f"{s / 60:.1f}", str(done * size), f"{main:.0f}", f"{worker:.0f}"] for s, done, main, worker in places]
    about = f"{line['said'].get('rows', 0)} rows by {line['name']}, {line['said'].get('bad', 0)} bad rows told"
    return f"{table(head, rows)}\n\n{about}; {machine(line['environment'])}."


def costs_table(folder: Path) -> str:
    """Core-seconds and bytes of a picture by its size, measured; and of many, calculated from them."""
    if not (lines := _lines(folder, "costs")):
        return _NOT_YET
    many = [f"{name}: core-hours, TB in, GB out" for name, _ in _MANY]
    head = ("pictures (measured)", "core-ms", "kB in", "bytes out", *(f"{one} (calculated)" for one in many))
    rows = [_cost(line) for line in sorted(lines, key=lambda line: line["side"])]
    first = lines[0]
    about = f"{first['model']} int8, {first['count']} pictures each, one thread; float32 vectors in parquet"
    return f"{table(head, rows)}\n\n{about}; {machine({**first['environment'], 'threads': 1})}."


def _cost(line: dict[str, Any]) -> list[str]:
    seconds, read_in, out = 1 / _rate(line), line["bytes_in"] / line["count"], line["bytes_out"] / line["count"]
    of_many = [f"{n * seconds / 3600:,.0f}, {n * read_in / 1e12:.1f}, {n * out / 1e9:,.0f}" for _, n in _MANY]
    return [line["name"], f"{1000 * seconds:.2f}", f"{read_in / 1e3:.1f}", f"{out:.0f}", *of_many]
