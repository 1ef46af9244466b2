"""`clipq.export`: a model as a folder that another runtime reads, compared with the model before it is handed over."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..arithmetic.precisions import check_towers
from ..description import described_model
from ..errors import ExportError, SchemeError
from ..machine import peak_memory_bytes
from ..models import Model
from ..resources import output_folder
from ..version import VERSION
from ..zoo.hub import file_sha256
from . import gate
from .copies import Tower, Towers, example, exportable
from .gate import Parity
from .graphs import write_graph
from .layouts import Layout, layout_named
from .packages import needed, version
from .targets import Session, Target, target_named

REPORT = "clipq-export.json"
_TOGETHER = "model"


@dataclass(frozen=True)
class Export:
    """`folder` with its `files` (paths relative to it, and bytes), the `parity` of each tower, and all of it as JSON."""

    folder: Path
    files: dict[str, int]
    parity: dict[str, Parity]
    report: dict[str, Any]


@dataclass(frozen=True)
class Order:
    """What is to be exported, and how."""

    model: Model
    name: str
    target: Target
    layout: Layout
    towers: tuple[str, ...]
    together: bool
    opset: int

    def graphs(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each graph: its path without an ending, and the towers in it."""
        if self.together:
            yield _TOGETHER, self.towers
        else:
            yield from ((self.layout.stem(self.model, tower), (tower,)) for tower in self.towers)


def export(
    model: Model | nn.Module,
    path: str | os.PathLike[str],
    to: str = "onnx",
    *,
    towers: Sequence[str] | None = None,
    layout: str = "plain",
    together: bool = False,
    opset: int | None = None,
    data: Any = None,
    timed: bool = True,
) -> Export:
    """Write `model` as the folder `path` (new or empty) for another runtime, in the precision that it has.

    `to`: a name of `clipq.exports.targets.TARGETS`. `towers`: which (default: all); `together`: both in one graph.
    `layout`: "plain", "immich" or "transformers.js". Inputs: pixel_values float32 [batch, 3, height, width], as
    `model.preprocess` makes them, and input_ids int64 [batch, context]; outputs float32 [batch, width], not normalized
    (Immich's names and types differ). `opset`: of ONNX. `data`: what it is compared on, as for calibration: pictures,
    or {"image": ..., "text": ...}; default: photos and captions of clipq's own. `timed`: whether to measure speed too.

    Everything is run in the runtime before the folder appears. Raises `ExportError` for what the target cannot
    express, or where its embeddings differ from the model's by more than `gate.thresholds`; `MissingPackageError`,
    naming the command, for an extra that is not installed; `OutputError` if it cannot be written.
    """
    order = _order(model if isinstance(model, Model) else Model(model), to, towers, layout, together, opset)
    needed(order.target.packages, order.target.extra, f"to={to!r}")
    begun = time.perf_counter()
    with output_folder(path) as folder, torch.no_grad():
        written = _write(order, folder)
        taken = time.perf_counter() - begun
        parity = _compare(order, folder, written, data, timed)
        _write_companions(order, folder)
        report = _report(order, folder, parity, taken)
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return Export(Path(path), {name: one["bytes"] for name, one in report["files"].items()}, parity, report)


def _order(
    model: Model, to: str, towers: Sequence[str] | None, layout: str, together: bool, opset: int | None
) -> Order:
    target = target_named(to)
    chosen = tuple(model.towers if towers is None else towers)
    check_towers(chosen)
    if not chosen or not set(chosen) <= set(model.towers):
        raise ExportError(f"towers={chosen} of a model that has {', '.join(model.towers)}; name some of these.")
    if together and (len(chosen) < 2 or layout != "plain"):
        raise SchemeError("together=True is for both towers, in layout='plain'.")
    for tower in chosen:
        _check_float(model, tower, to, target)
    found = layout_named(layout, to)
    return Order(model, to, target, found, chosen, together, max(opset or 0, target.opset))


def _check_float(model: Model, tower: str, to: str, target: Target) -> None:
    scheme = model.recipe.schemes[tower]
    if scheme.is_float and scheme.fallback not in target.floats:
        raise ExportError(
            f"the {tower} tower is {scheme.name!r}, which {to!r} does not have; it has {', '.join(target.floats)} "
            "and quantized precisions (`clipq list --precisions`)."
        )


def _write(order: Order, folder: Path) -> dict[str, Path]:
    """The graphs, in the target's files; the first of each by its stem."""
    copy = exportable(order.model, order.towers, order.target.forms, order.name)
    found = {}
    for stem, towers in order.graphs():
        path = folder / f"{stem}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        module = Towers(copy, order.layout.normalize) if len(towers) == 2 else Tower(copy, *towers, order.layout.normalize)
        inputs = {order.layout.inputs[tower]: _example(order, tower) for tower in towers}
        outputs = [order.layout.outputs[tower] for tower in towers]
        files = write_graph(module, inputs, outputs, path, order.opset, _about(order, towers))
        if order.target.convert:
            own = order.target.convert(path, folder / stem)
            for file in files:
                file.unlink()
            files = own
        found[stem] = files[0]
    return found


def _example(order: Order, tower: str) -> torch.Tensor:
    found = example(order.model, tower)
    return found.to(order.layout.ids) if tower == "text" else found


def _about(order: Order, towers: tuple[str, ...]) -> dict[str, str]:
    described = described_model(order.model)
    precision = {tower: described["precision"][tower] for tower in towers}
    return {"clipq": json.dumps({"version": VERSION, "name": described["name"], "precision": precision})}


def _compare(
    order: Order, folder: Path, written: Mapping[str, Path], data: Any, timed: bool
) -> dict[str, Parity]:
    """Raises `ExportError` for the first tower that does not pass."""
    samples, allowed = gate.samples(order.model, order.towers, data), gate.thresholds(order.model)
    found = {}
    for stem, towers in order.graphs():
        session = _opened(order, written[stem])
        for tower in towers:
            encode = _encode(order, session, towers, tower)
            parity = gate.compared(order.model, tower, encode, samples[tower], allowed[tower], timed)
            if not parity.passed:
                raise ExportError(
                    f"the {tower} tower in {order.target.runtime} is not the model: worst cosine {parity.worst:.5f} over "
                    f"{parity.count} inputs, and {parity.threshold} is asked for; nothing was written. Export another "
                    "precision, or report it with the model's name."
                )
            found[tower] = parity
    return found


def _opened(order: Order, path: Path) -> Session:
    try:
        return order.target.open(path, torch.get_num_threads())
    except Exception as error:  # the border to a runtime that is given a file it may not like
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"{order.target.runtime} does not load what was exported: {reason}") from error


def _encode(order: Order, session: Session, towers: tuple[str, ...], tower: str) -> gate.Encode:
    """One tower of a graph, whose other inputs are whatever they may be."""
    names, output = order.layout.inputs, order.layout.outputs[tower]
    others = {names[other]: _example(order, other).numpy()[:1] for other in towers if other != tower}
    kind = np.float32 if tower == "image" else torch.empty(0, dtype=order.layout.ids).numpy().dtype
    return lambda array: session({names[tower]: np.ascontiguousarray(array, kind), **others}, output)


def _write_companions(order: Order, folder: Path) -> None:
    for name, body in order.layout.companions(order.model, order.towers).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body, encoding="utf-8")


def _report(order: Order, folder: Path, parity: Mapping[str, Parity], seconds: float) -> dict[str, Any]:
    files = {
        str(file.relative_to(folder).as_posix()): {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
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
        "parity": {tower: one.to_dict() for tower, one in parity.items()},
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak_memory_bytes(),
        "files": files,
    }

