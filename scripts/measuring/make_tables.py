"""Write the README's tables of measured results from eval/results/.

python scripts/measuring/make_tables.py            # rewrites README.md between its markers
python scripts/measuring/make_tables.py --check    # exit code 1 if README.md is not what it would write
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "eval" / "results"


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
    about = f"Files: {sizes}; int8: {share} of the matrix weights, 100 % of the blocks'."
    kernel = results[0]["model"]["kernel_path"]
    runs = f"Random weights, captions of mixed lengths, medians of {results[0]['runs']} runs"
    where = f"{about} {runs}; {machine(results[0]['environment'])}; kernel {kernel}."
    return f"**ViT-B/32.** {where}\n\n{table(head, [row for result in results for row in speed_rows(result)])}"


def host_calls_table(name: str) -> str:
    """The hosts' own calls of a quantized module: against fp32, against `clipq.Model`, and what they were in 0.2."""
    lines = read(name)
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


def tables() -> str:
    """Everything between the markers."""
    return "\n\n".join(
        [
            accuracy_table("clipq-tiny-drawings.jsonl", "clipq-tiny, drawings in an art style never seen in training."),
            accuracy_table("deit-clip-imagenet-photos.jsonl", "DeiT-Tiny CLIP, ImageNet photos, 80 templates."),
            speed_table("vit-b-32-random.jsonl"),
            host_calls_table("host-calls-vit-b-32.jsonl"),
        ]
    )


def peer_tables(folder: Path = RESULTS) -> str:
    """The newest run of every `peers-*.jsonl`; nothing where there is none."""
    return "\n\n".join(peer_table(json.loads(last_line(path))) for path in sorted(folder.glob("peers-*.jsonl")))


def last_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[-1]


def peer_table(result: dict[str, Any]) -> str:
    """clipq int8 and everyone else on one model: a table for each tower and input, then who is not in them and why."""
    rows, machine_ = result["rows"], machine(result["environment"])
    versions = {name: v for one in result["contestants"] for name, v in one["versions"].items() if v}
    with_versions = ", ".join(f"{name} {versions[name]}" for name in sorted(versions) if name not in ("clipq", "torch"))
    weights = "Random weights. " if result["weights"] == "random" else ""
    parts = [
        f"**{result['model']['name']} against peers.** {weights}Milliseconds an item (range), and how many times clipq "
        f"int8's time that is; medians of {result['runs']} samples, in turns. Memory is the peak of a fresh process "
        f"(in brackets: its libraries alone). {machine_}, {with_versions}; kernel {result['model']['kernel_path']}."
    ]
    for tower, kind in dict.fromkeys((row["tower"], row["input"]) for row in rows):
        here = [row for row in rows if (row["tower"], row["input"]) == (tower, kind)]
        parts.append(f"{tower.capitalize()} tower, {INPUT_NAMES.get(kind, kind)}:\n\n{peer_rows(result, here)}")
    return "\n\n".join([*parts, *absent(result)])


INPUT_NAMES = {"captions": "captions of mixed length", "full": "every token of the context in use"}


def peer_rows(result: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """One line a contestant, one column a batch size."""
    sizes = sorted({row["batch_size"] for row in rows})
    head = ("", *(f"batch {size}" for size in sizes), "cosine to fp32", "memory, MB")
    lines = []
    for one in result["contestants"]:
        own = {row["batch_size"]: row for row in rows if row["contestant"] == one["name"]}
        if own:
            cosines = [row["cosine"]["mean"] for row in own.values() if row["cosine"]]
            near = f"{min(cosines):.5f}" if cosines else ""
            lines.append([one["name"], *(peer_cell(own.get(size)) for size in sizes), near, peer_memory(one["memory"])])
    return table(head, lines)


def peer_cell(row: dict[str, Any] | None) -> str:
    """Time, range, ratio, and which of a contestant's settings was the fastest."""
    if row is None:
        return "failed"
    median, low, high = (row["ms"][key] / row["batch_size"] for key in ("median", "min", "max"))
    ratio = "" if row["ratio"] is None else f", {row['ratio']:.2f} x"
    setting = f", {row['setting']}" if row["other_settings_ms"] else ""
    return f"{median:.2f} ({low:.2f}-{high:.2f}){ratio}{setting}"


def peer_memory(found: dict[str, float] | None) -> str:
    return f"{found['peak'] / 1e6:.0f} ({found['idle'] / 1e6:.0f})" if found else ""


def absent(result: dict[str, Any]) -> Iterable[str]:
    """A sentence on who was skipped and one on what failed, with the reasons."""
    skipped = [f"{one['name']} ({one['reason']})" for one in result["contestants"] if one["status"] == "skipped"]
    failed = dict.fromkeys(f"{one['contestant']}, {one['tower']} ({one['error']})" for one in result["failures"])
    for word, names in (("Skipped", skipped), ("Failed", failed)):
        if names:
            yield f"{word}: {'; '.join(names)}."


SECTIONS: dict[str, Callable[[], str]] = {"tables": tables, "peers": peer_tables}
"""What stands between `<!-- NAME -->` and `<!-- /NAME -->` in README.md."""


def written(text: str, sections: Mapping[str, Callable[[], str]]) -> str:
    """`text` with every section written anew. Raises `ValueError` if its markers are missing."""
    for name, section in sections.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"README.md needs {start} and {end} around the tables")
        text = f"{before}{start}\n{section()}\n{end}{after}"
    return text


def main() -> None:
    """Rewrite or check README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = written(old, SECTIONS)
    if check:
        sys.exit(new != old and "README.md is not what eval/results says; run python scripts/measuring/make_tables.py")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
