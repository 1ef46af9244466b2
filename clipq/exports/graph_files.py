"""A model's towers as graphs of a target, and as functions of arrays again, run from the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from ..description import model_name
from ..errors import ExportError, first_line
from ..version import VERSION
from .copies import Tower, Towers, example, exportable
from .gate import Encode
from .graphs import write_graph
from .orders import Order
from .targets import Session, Target


def write_and_open(order: Order, folder: Path) -> dict[str, Encode]:
    """Write every graph of `order` into `folder`; each tower as its runtime runs it."""
    written, found = _write(order, folder), {}
    for stem, towers in order.graphs():
        session = opened(order.target, written[stem])
        found |= {tower: _encode(order, session, towers, tower) for tower in towers}
    return found


def _write(order: Order, folder: Path) -> dict[str, Path]:
    """The graphs, in the target's files; the first of each by its stem."""
    copy = exportable(order.model, order.towers, order.target.forms, order.name)
    found = {}
    for stem, towers in order.graphs():
        path = folder / f"{stem}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        module = (
            Towers(copy, order.layout.normalize) if len(towers) == 2 else Tower(copy, *towers, order.layout.normalize)
        )
        inputs = {order.layout.inputs[tower]: _example(order, tower) for tower in towers}
        outputs = [order.layout.outputs[tower] for tower in towers]
        files = write_graph(module, inputs, outputs, path, order.opset, _about(order, towers))
        if order.target.convert:
            own = order.target.convert(path, folder / stem, order.kinds(towers))
            for file in files:
                file.unlink()
            files = own
        found[stem] = files[0]
    return found


def _example(order: Order, tower: str) -> torch.Tensor:
    found = example(order.model, tower)
    return found.to(order.layout.ids) if tower == "text" else found


def _about(order: Order, towers: tuple[str, ...]) -> dict[str, str]:
    precision = {tower: order.model.precision[tower] for tower in towers}
    return {"clipq": json.dumps({"version": VERSION, "name": model_name(order.model), "precision": precision})}


def opened(target: Target, path: Path) -> Session:
    """A graph in the runtime of `target`. Raises `ExportError` for a file that it does not load."""
    try:
        return target.open(path, torch.get_num_threads())
    except Exception as error:  # the border to a runtime that is given a file it may not like
        raise ExportError(f"{target.runtime} does not load {path.name}: {first_line(error)}") from error


def _encode(order: Order, session: Session, towers: tuple[str, ...], tower: str) -> Encode:
    """One tower of a graph, whose other inputs are whatever they may be."""
    names, output = order.layout.inputs, order.layout.outputs[tower]
    others = {names[other]: _example(order, other).numpy()[:1] for other in towers if other != tower}
    kind = np.float32 if tower == "image" else torch.empty(0, dtype=order.layout.ids).numpy().dtype
    return lambda array: session({names[tower]: np.ascontiguousarray(array, kind), **others}, output)
