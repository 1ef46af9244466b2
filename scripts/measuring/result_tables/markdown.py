"""Reading result files, and what all tables are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[3] / "eval" / "results"


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of one result file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def machine(environment: dict[str, Any]) -> str:
    """Where a table's numbers come from."""
    versions = environment["versions"]
    return f"{environment['processor']}, {environment['threads']} threads, torch {versions['torch']}"


def instructions(kernel_path: str) -> str:
    """The instruction set that clipq's kernel used, as people write it."""
    name = kernel_path.split("/")[-1]
    return {"avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI"}.get(name, name.upper())
