"""How many files a second become normalized embeddings? Reading, decoding and preprocessing included."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .description import described_environment, described_model, precision_name
from .embedding.rows import BATCHES_PER_SHARD, batches_of, check_tower
from .errors import ClipqError, DataError
from .inputs.listing import Inputs
from .inputs.scaling import DECODES, smallest_of
from .work.processes import Processes
from .work.spent import Spent
from .work.work import cut

if TYPE_CHECKING:
    from .models import Model


def benchmark_files(
    model: Model, baseline: Model, inputs: Inputs, runs: int = 5, batch_size: int = 32
) -> dict[str, Any]:
    """Inputs a second of `model` with each way of decoding, and of `baseline` with the exact one, as `embed` does them.

    They take turns, a pass over all inputs each, after a pass over some that counts for nothing. Reported are the
    median, the range, the ratio to the baseline, and the milliseconds that an input takes in each step: `encode` and
    `wait` by the clock, `decode` and `preprocess` of a core, in the threads that work ahead.
    Returns a JSON-able dict. Raises `ClipqError` for numbers below 1, `DataError` if nothing can be read.
    """
    if runs < 1 or batch_size < 1:
        raise ClipqError(f"runs={runs}, batch_size={batch_size}: both must be whole numbers of at least 1.")
    check_tower(model, inputs.tower, inputs.source)
    ways = [(one, replace(inputs, decode=decode)) for one, decode in _ways(model, baseline, inputs)]
    for one, way in ways:
        _pass(one, way, batch_size, min(len(inputs.names), 2 * batch_size))
    passes: list[list[tuple[float, Spent]]] = [[] for _ in ways]
    for _ in range(runs):
        for (one, way), found in zip(ways, passes, strict=True):
            found.append(_pass(one, way, batch_size, len(inputs.names)))
    base = statistics.median(_rates(passes[-1]))
    return {
        "model": described_model(model),
        "baseline": described_model(baseline),
        "tower": inputs.tower,
        "inputs": len(inputs.names),
        "batch_size": batch_size,
        "rows": [_row(one, way, found, base) for (one, way), found in zip(ways, passes, strict=True)],
        "runs": runs,
        "environment": described_environment(Processes()),
    }


def _ways(model: Model, baseline: Model, inputs: Inputs) -> list[tuple[Model, str]]:
    """Every way that is another one: texts are not decoded, and some preprocessing is never scaled for."""
    scalable = bool(inputs.entries) and smallest_of(model.preprocessing, "scaled") is not None
    return [*((model, decode) for decode in DECODES if scalable or decode == "exact"), (baseline, "exact")]


def _pass(model: Model, inputs: Inputs, batch_size: int, count: int) -> tuple[float, Spent]:
    spent, begun = Spent(), time.perf_counter()
    batches = batches_of(model, inputs, batch_size, True, spent)
    shards = list(batches.shards(cut(range(count), batch_size * BATCHES_PER_SHARD)))
    seconds = time.perf_counter() - begun
    if not spent.rows:
        raise DataError(f"none of the first {count} inputs of {inputs.source} can be read: {shards[0].broken[0]}")
    return seconds, spent


def _rates(found: list[tuple[float, Spent]]) -> list[float]:
    return [spent.rows / seconds for seconds, spent in found]


def _row(model: Model, inputs: Inputs, found: list[tuple[float, Spent]], base: float) -> dict[str, Any]:
    rates = _rates(found)
    steps = {what: statistics.median(spent.each(what) for _, spent in found) for what in found[0][1].seconds}
    return {
        "precision": precision_name(described_model(model)),
        "decode": inputs.decode if inputs.entries else None,
        "per_second": {"median": statistics.median(rates), "min": min(rates), "max": max(rates)},
        "speedup": statistics.median(rates) / base,
        "ms": steps,
    }
