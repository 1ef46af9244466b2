"""The parity gate: what was exported, run in its runtime on pictures and captions beside the clipq model.

Cosines between the two, of each picture and caption: their mean, and the worst. Below the threshold an export is no
export. Times are of the runtime's own defaults and of clipq, taken in turns in the same process.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportError, first_line
from ..methods.calibration import inputs_of
from ..models import Model
from ..timing import alternate

Encode = Callable[[np.ndarray], np.ndarray]
"""A tower in a runtime: float32 pixels [n, 3, height, width] or int64 ids [n, context] to float32 [n, width]."""

FLOAT_WORST, INT8_WORST, OWN_WORST = 0.999, 0.995, 0.99
"""The worst cosine that passes: of a float tower, of integers, and of integers in a runtime that rounds rows in a way
of its own, whose error comes on top of clipq's.
"""
SAMPLES = 32
_TIMED = (1, 8)
_RUNS = 5


@dataclass(frozen=True)
class Parity:
    """Of one tower: cosines over `count` inputs, and medians of milliseconds an item by batch size."""

    count: int
    mean: float
    worst: float
    threshold: float
    ms: dict[str, float]
    clipq_ms: dict[str, float]

    @property
    def passed(self) -> bool:
        return self.worst >= self.threshold  # a NaN is not

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def samples(model: Model, towers: Sequence[str], given: Any = None) -> dict[str, Tensor]:
    """At most `SAMPLES` inputs for each tower: of the user's data (as for calibration), else of clipq's own.

    A model without preprocessing or tokenizer gets noise and made-up ids, the same ones every time.
    """
    found = {}
    for tower in towers:
        source = given.get(tower) if isinstance(given, Mapping) else given if tower == "image" else None
        if source is None and not _reads(model, tower):
            found[tower] = _made_up(model, tower)
        else:
            batches = inputs_of(model, [tower], None if source is None else {tower: source}, most=SAMPLES)[tower]
            found[tower] = torch.cat(list(batches)).cpu()
    return found


def _reads(model: Model, tower: str) -> bool:
    return bool(model.preprocessing) if tower == "image" else model.tokenizer_spec is not None


def _made_up(model: Model, tower: str) -> Tensor:
    chance = torch.Generator().manual_seed(0)
    if tower == "image":
        return torch.randn(SAMPLES, *model.host.pixel_shape(model.module), generator=chance)
    context, vocabulary = model.host.context_length(model.module), model.host.vocabulary(model.module) or 2
    return torch.randint(vocabulary, (SAMPLES, context), generator=chance)


def thresholds(model: Model, rounds_rows: bool = False) -> dict[str, float]:
    """The worst cosine that passes, by tower. `rounds_rows`: whether the runtime quantizes them in a way of its own."""
    integers = OWN_WORST if rounds_rows else INT8_WORST
    return {tower: FLOAT_WORST if one.is_float else integers for tower, one in model.recipe.schemes.items()}


def compared(model: Model, tower: str, encode: Encode, inputs: Tensor, threshold: float, timed: bool) -> Parity:
    """`encode` beside the tower of `model`. Raises `ExportError` for a runtime that fails, or gives another shape."""
    own = encode_of(model, tower)
    reference = own(inputs)
    try:
        found = torch.from_numpy(np.concatenate([encode(one) for one in _parts(inputs)]))
    except Exception as error:  # the border to a runtime that is given a file it may not like
        raise ExportError(f"the runtime cannot run the {tower} tower: {first_line(error)}") from error
    if found.shape != reference.shape:
        raise ExportError(f"the {tower} tower gives {list(found.shape)} in its runtime, {list(reference.shape)} here.")
    cosines = torch.cosine_similarity(found.double(), reference.double(), dim=-1)
    worst = cosines.min().item() if bool(cosines.isfinite().all()) else float("nan")
    ms, own_ms = _times(encode, own, inputs) if timed else ({}, {})
    return Parity(len(inputs), cosines.mean().item(), worst, threshold, ms, own_ms)


def encode_of(model: Model, tower: str) -> Callable[[Tensor], Tensor]:
    """A tower of the clipq model on the CPU's tensors."""
    return (lambda x: model.encode_image(x).cpu()) if tower == "image" else (lambda x: model.encode_text(x).cpu())


def _parts(inputs: Tensor) -> list[np.ndarray]:
    """Batches of several sizes: a graph that keeps one would fail here."""
    sizes = [1, min(3, len(inputs) - 1), len(inputs) - 1 - min(3, len(inputs) - 1)]
    return [part.numpy() for part in inputs.split([size for size in sizes if size > 0])]


def _times(
    encode: Encode, own: Callable[[Tensor], Tensor], inputs: Tensor
) -> tuple[dict[str, float], dict[str, float]]:
    found: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for size in _TIMED:
        batch = inputs[:size]
        array = batch.numpy()
        samples = alternate([lambda a=array: encode(a), lambda b=batch: own(b)], _RUNS, torch.device("cpu"))
        for place, ms in enumerate(samples):
            found[place][str(len(batch))] = round(statistics.median(ms) / len(batch), 3)
    return found
