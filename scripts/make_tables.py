"""Write the README's tables of measured results from eval/results/.

python scripts/make_tables.py            # rewrites README.md between its markers
python scripts/make_tables.py --check    # exit code 1 if README.md is not what it would write
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "eval" / "results"
START, END = "<!-- tables -->", "<!-- /tables -->"


def read(name: str) -> list[dict[str, Any]]:
    """The lines of one result file."""
    return [json.loads(line) for line in (RESULTS / name).read_text(encoding="utf-8").splitlines()]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def machine(environment: dict[str, Any]) -> str:
    """The line that says where a table's numbers come from."""
    versions = environment["versions"]
    return f"{environment['processor']}, {environment['threads']} threads, torch {versions['torch']}"


def accuracy(result: dict[str, Any]) -> list[str]:
    """One row: what a precision answers, and how far it is from fp32."""
    found, towers = result["comparison"], result["model"]["precision"]
    low, high = found["drop_interval_points"]
    names = sorted(set(towers.values()))
    return [
        names[0] if len(names) == 1 else ", ".join(f"{tower} {name}" for tower, name in towers.items()),
        percent(result["metrics"]["top1"]),
        f"{found['drop_points']:.2f} ({low:.2f} to {high:.2f})",
        percent(found["agreement"]),
        f"{found['image_cosine']['mean']:.5f}",
        f"{found['text_cosine']['mean']:.5f}",
    ]


def accuracy_table(name: str, title: str) -> str:
    """fp32 and every precision compared with it, on one task."""
    results = read(name)
    first = results[0]
    base = first["metrics"]["top1"] + first["comparison"]["drop_points"] / 100
    head = ("precision", "top-1", "drop, points (95 %)", "agreement", "image cosine", "text cosine")
    rows = [["fp32", percent(base), "", "", "", ""], *(accuracy(result) for result in results)]
    kernels = ", ".join(sorted({r["model"]["kernel_path"] for r in results} - {"float"}))
    where = f"n = {first['n']}, {first['n_classes']} classes; {machine(first['environment'])}; kernel {kernels}."
    return f"**{title}** {where}\n\n{table(head, rows)}"


def speed_rows(result: dict[str, Any]) -> Iterable[list[str]]:
    for row in result["rows"]:
        size, own, base = row["batch_size"], row["ms"], row["baseline_ms"]
        spread = [f"{x['median'] / size:.2f} ({x['min'] / size:.2f}-{x['max'] / size:.2f})" for x in (base, own)]
        yield [result["model"]["source"]["host"], row["tower"], str(size), *spread, f"{row['speedup']:.2f} x"]


def speed_table(name: str) -> str:
    """Milliseconds an item of ViT-B/32, int8 beside fp32, and the sizes of the files."""
    results = read(name)
    head = ("host", "tower", "batch", "fp32 ms an item (range)", "int8 ms an item (range)", "speed-up")
    sizes = ", ".join(f"{key} {value / 1e6:.1f} MB" for key, value in results[0]["bytes"].items())
    share = percent(results[0]["coverage"]["matrix_weights"])
    about = f"Files: {sizes}; int8: {share} of the matrix weights, 100 % of the blocks'. Random weights, medians of"
    kernel = results[0]["model"]["kernel_path"]
    where = f"{about} {results[0]['runs']} runs; {machine(results[0]['environment'])}; kernel {kernel}."
    return f"**ViT-B/32.** {where}\n\n{table(head, [row for result in results for row in speed_rows(result)])}"


def tables() -> str:
    """Everything between the markers."""
    return "\n\n".join(
        [
            accuracy_table("clipq-tiny-drawings.jsonl", "clipq-tiny, drawings in an art style never seen in training."),
            accuracy_table("deit-clip-imagenet-photos.jsonl", "DeiT-Tiny CLIP, ImageNet photos, 80 templates."),
            speed_table("vit-b-32-random.jsonl"),
        ]
    )


def main() -> None:
    """Rewrite or check README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    before, _, rest = old.partition(START)
    new = f"{before}{START}\n{tables()}\n{END}{rest.partition(END)[2]}"
    if check:
        sys.exit(new != old and "README.md is not what eval/results says; run python scripts/make_tables.py")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
