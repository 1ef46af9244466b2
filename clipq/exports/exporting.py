"""`clipq.export`: a model as a folder that another runtime reads, compared with the model before it is handed over."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..description import described_model
from ..errors import ExportError
from ..files.header import EXPORT_REPORT
from ..machine import peak_memory_bytes
from ..models import Model
from ..resources import output_folder
from ..version import VERSION
from ..zoo.hub import file_sha256
from . import gate
from .gate import Parity
from .graph_files import write_and_open
from .orders import Order, order_of
from .packages import needed, version


@dataclass(frozen=True)
class Export:
    """`folder` with its `files` (paths in it, and bytes), the `parity` of each tower, and all of it as JSON."""

    folder: Path
    files: dict[str, int]
    parity: dict[str, Parity]
    report: dict[str, Any]


def export(
    model: Model | nn.Module,
    path: str | os.PathLike[str],
    to: str = "onnx",
    *,
    towers: Sequence[str] | None = None,
    layout: str = "plain",
    opset: int | None = None,
    data: Any = None,
    timed: bool = True,
) -> Export:
    """Write `model` as the folder `path` (new or empty) for another runtime, in the precision that it has.

    `to`: a name of `clipq.exports.targets.TARGETS`. `towers`: which (default: all). `layout`: "plain", "together" (both
    towers in one graph), "immich" or "transformers.js". Inputs: pixel_values float32 [batch, 3, height, width], as
    `model.preprocess` makes them, and input_ids int64 [batch, context]; outputs float32 [batch, width], not normalized
    (Immich's names and types differ). `opset`: of ONNX. `data`: what it is compared on, as for calibration: pictures,
    or {"image": ..., "text": ...}; default: photos and captions of clipq's own. `timed`: whether to measure speed too.

    Everything is run in the runtime before the folder appears. Raises `ExportError` for what the target cannot
    express, or where its embeddings differ from the model's by more than `gate.thresholds`; `MissingPackageError`,
    naming the command, for an extra that is not installed; `OutputError` if it cannot be written.
    """
    order = order_of(model if isinstance(model, Model) else Model(model), to, towers, layout, opset)
    needed(order.target.packages, order.target.extra, f"to={to!r}")
    begun = time.perf_counter()
    with output_folder(path) as folder, torch.no_grad():
        encoders, left = _written(order, folder)
        taken = time.perf_counter() - begun
        parity = _compare(order, encoders, data, timed)
        report = {**_report(order, folder, parity), "left_float": dict(left), "seconds": round(taken, 1)}
        (folder / EXPORT_REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return Export(Path(path), {name: one["bytes"] for name, one in report["files"].items()}, parity, report)


def _written(order: Order, folder: Path) -> tuple[Mapping[str, gate.Encode], Mapping[str, str]]:
    """Each tower as the runtime runs what was written, and what could not be kept in integers."""
    if order.target.folder:
        return order.target.folder(order.model, folder)
    _write_companions(order, folder)  # first, as it is quickly refused
    return write_and_open(order, folder), {}


def _compare(order: Order, encoders: Mapping[str, gate.Encode], data: Any, timed: bool) -> dict[str, Parity]:
    """Raises `ExportError` for the first tower that does not pass."""
    samples, allowed = (
        gate.samples(order.model, order.towers, data),
        gate.thresholds(order.model, order.target.rounds_rows),
    )
    found = {}
    for tower in order.towers:
        parity = gate.compared(order.model, tower, encoders[tower], samples[tower], allowed[tower], timed)
        if not parity.passed:
            raise ExportError(
                f"the {tower} tower in {order.target.runtime} is not the model: worst cosine {parity.worst:.5f} over "
                f"{parity.count} inputs, and {parity.threshold} is asked for; nothing was written. Export another "
                "precision, or report it with the model's name."
            )
        found[tower] = parity
    return found


def _write_companions(order: Order, folder: Path) -> None:
    for name, body in order.layout.companions(order.model, order.towers).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body, encoding="utf-8")


def _report(order: Order, folder: Path, parity: Mapping[str, Parity]) -> dict[str, Any]:
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    return {
        "clipq": VERSION,
        "target": order.name,
        "runtime": {order.target.runtime: version(order.target.runtime)},
        "note": order.target.note,
        "opset": order.opset,
        "model": described_model(order.model),
        "inputs": {tower: order.layout.inputs[tower] for tower in order.towers},
        "outputs": {tower: order.layout.outputs[tower] for tower in order.towers},
        "normalized": order.layout.normalize,
        "spaces": {tower: order.model.space(tower, normalized=order.layout.normalize).id for tower in order.towers},
        "parity": {tower: one.to_dict() for tower, one in parity.items()},
        "threads": torch.get_num_threads(),
        "peak_memory_bytes": peak_memory_bytes(),
        "files": files,
    }
