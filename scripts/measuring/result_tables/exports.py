"""What runs where: every export beside the clipq model it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .markdown import percent, read, table

TITLES = {"deit-clip": "DeiT-Tiny CLIP, ImageNet photos", "clipq-tiny": "clipq-tiny, drawings of a style never seen"}
"""The files `exports-NAME.jsonl` that are shown, in order, and what they are called."""

NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "mnn": "MNN", "tensorrt": "TensorRT's graph, in ONNX Runtime"}
HEAD = (
    "runtime",
    "precision",
    "top-1",
    "same answer",
    "cosine",
    "worst",
    "MB",
    "ms an image, batch 1 / 8",
    "clipq's ms",
)

SHORT = (
    *(("onnx", name) for name in ("fp16", "int8", "int8-weight-only", "int4-gptq")),
    *(("openvino", name) for name in ("fp16", "int8", "int8-static")),
    ("mnn", "int8"),
    ("tensorrt", "int8-static-symmetric"),
)
"""The rows of the front page, of the first model."""
SHORT_HEAD = ("runs in", "precision", "same answer as clipq", "worst cosine", "MB", "times clipq's ms, batch 8")

Line = dict[str, Any]


def tables(folder: Path) -> str:
    """A table a model, the newest line of each export."""
    found = {title: current(folder / f"exports-{name}.jsonl") for name, title in TITLES.items()}
    return "\n\n".join(model_table(title, lines) for title, lines in found.items() if lines)


def short_table(folder: Path) -> str:
    """The front page's: of one model, each runtime's usual precisions."""
    name, title = next(iter(TITLES.items()))
    lines = {(line["to"], line["precision"]): line for line in current(folder / f"exports-{name}.jsonl")}
    shown = [lines[key] for key in SHORT if key in lines]
    about = f"{title}, n = {shown[0]['n']}; {shown[0]['environment']['processor']}, in turns on a busy machine."
    return f"{table(SHORT_HEAD, [short_row(line) for line in shown])}\n\n{about}"


def short_row(line: Line) -> list[str]:
    name, precision, _, agreement, _, worst, size, *_ = table_row(line)
    speed = line["export"]["parity"]["image"]
    ratio = f"{speed['ms']['8'] / speed['clipq_ms']['8']:.1f}" if line["to"] != "tensorrt" else ""
    return [name, precision, agreement, worst, size, ratio]


def current(path: Path) -> list[Line]:
    """The newest line of each target and precision, in the order of `NAMES`."""
    lines = sorted(read(path), key=lambda line: line["date"]) if path.exists() else []
    newest = {(line["to"], line["precision"]): line for line in lines}
    return [newest[key] for key in sorted(newest, key=lambda key: [*NAMES].index(key[0]))]


def model_table(title: str, lines: list[Line]) -> str:
    first = lines[0]
    versions = {name: value for line in lines for name, value in line["export"]["runtime"].items()}
    about = ", ".join(f"{name} {value}" for name, value in versions.items())
    environment = first["environment"]
    machine = f"{environment['processor']}, {environment['threads']} threads"
    return f"**{title}** ({first['n']} pictures, {first['classes']} classes; {machine}; {about})\n\n" + table(
        HEAD, [table_row(line) for line in lines]
    )


def table_row(line: Line) -> list[str]:
    speed = line["export"]["parity"]["image"]
    timed = line["to"] != "tensorrt"  # another runtime's time would say nothing
    return [
        NAMES[line["to"]],
        f"`{line['precision']}`",
        percent(line["top1"]),
        percent(line["agreement"]),
        f"{line['image_cosine']['mean']:.5f}",
        f"{line['image_cosine']['worst']:.5f}",
        f"{line['graph_bytes'] / 1e6:.1f}",
        " / ".join(f"{ms:.1f}" for ms in speed["ms"].values()) if timed else "",
        " / ".join(f"{ms:.1f}" for ms in speed["clipq_ms"].values()) if timed else "",
    ]
