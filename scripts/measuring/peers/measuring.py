"""Taking turns, and what a fresh process needs."""

from __future__ import annotations

import gc
import importlib
import math
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from clipq.machine import peak_memory_bytes

from .contestant import Contestant, Encode
from .trust import SPREAD, spread, summary
from .workspace import INPUTS, Workspace

if TYPE_CHECKING:
    import numpy as np

SAMPLE_SECONDS = 0.05
"""A sample repeats short calls until it lasts about this long, as in clipq.benchmark."""

PAUSE_SECONDS = 0.02
"""Between turns. Threads of OpenMP and TBB spin for a while after a call, on the cores of whoever comes next."""

ATTEMPTS = 3
"""A cell in which something else was running is measured again, so many times in all."""

Key = tuple[str, str]
"""Contestant and setting."""


def in_turns(
    encoders: Mapping[Key, Encode], inputs: np.ndarray, runs: int, once: Mapping[Key, float]
) -> tuple[dict[Key, list[float]], dict[Key, str]]:
    """Milliseconds per call of each: `runs` samples, A B C A B C; and the errors of those that fail on the way.

    once: the seconds that one call took.
    """
    repeats = {key: math.ceil(SAMPLE_SECONDS / max(once[key], 1e-6)) for key in encoders}
    samples: dict[Key, list[float]] = {key: [] for key in encoders}
    errors: dict[Key, str] = {}
    gc.collect()
    for _ in range(runs):
        for key in [key for key in encoders if key not in errors]:
            time.sleep(PAUSE_SECONDS)
            seconds, error = attempted(partial(_seconds, encoders[key], inputs, repeats[key]))
            if error:
                errors[key] = error
            else:
                samples[key].append(1000 * seconds / repeats[key])
    return {key: found for key, found in samples.items() if key not in errors}, errors


def quietest(
    encoders: Mapping[Key, Encode], inputs: np.ndarray, runs: int, once: Mapping[Key, float]
) -> tuple[dict[Key, list[float]], dict[Key, str], int]:
    """`in_turns`, again while the fastest's own spread is too large; the attempt with the smallest, and how many.

    An attempt is chosen by its spread, never by its times.
    """
    best, least, errors, tries = {}, math.inf, {}, 0
    while tries < ATTEMPTS and least > SPREAD:
        tries += 1
        samples, failed = in_turns({k: e for k, e in encoders.items() if k not in errors}, inputs, runs, once)
        errors |= failed
        now = min((summary(found) for found in samples.values()), key=lambda ms: ms["median"], default=None)
        share = 0.0 if now is None else spread(now) or 0.0
        if share < least:
            best, least = samples, share
    return {key: found for key, found in best.items() if key not in errors}, errors, tries


def single(encode: Encode, inputs: np.ndarray) -> float:
    """Seconds of one call."""
    return _seconds(encode, inputs, 1)


def _seconds(encode: Encode, inputs: np.ndarray, count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        encode(inputs)
    return time.perf_counter() - begun


def cosine(found: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Cosine of each row to the reference's: mean and least."""
    import numpy as np

    a, b = found.astype(np.float64), reference.astype(np.float64)
    each = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-30)
    return {"mean": float(each.mean()), "min": float(each.min())}


def first_line(error: BaseException) -> str:
    """What a result says of an error: its kind and the first line of its message that is not empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


def attempted(step: Callable[[], Any]) -> tuple[Any, str | None]:
    """What `step` returns, and why it did not. A contestant that fails must not end the run of the others."""
    try:
        return step(), None
    except Exception as error:
        return None, first_line(error)


def memory(contestant: Contestant, workspace: Workspace) -> dict[str, float]:
    """One contestant in a fresh process: seconds to load, and in bytes "idle" (libraries imported), "loaded", "peak".

    "loaded" is the most while loading, "peak" the most after the largest batch of every input through every tower.
    Its first setting is used. Resident memory; 0 where the system does not say.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measure_memory, contestant, workspace).result()


def _first_setting(contestant: Contestant, workspace: Workspace, tower: str) -> Encode:
    settings = contestant.settings(workspace, tower, workspace.largest)
    return next(iter(settings.values()))()


def _measure_memory(contestant: Contestant, workspace: Workspace) -> dict[str, float]:
    for module in contestant.modules:
        importlib.import_module(module)
    idle, begun = peak_memory_bytes(), time.perf_counter()
    opened = {tower: _first_setting(contestant, workspace, tower) for tower in workspace.towers}
    seconds, loaded = time.perf_counter() - begun, peak_memory_bytes()
    for tower, encode in opened.items():
        for kind in INPUTS[tower]:
            encode(workspace.inputs(kind))
    return {"load_seconds": seconds, "idle": idle, "loaded": loaded, "peak": peak_memory_bytes()}
