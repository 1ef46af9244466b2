"""How long calls take: side by side, in turns, on devices that queue their work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Call = Callable[[], object]

_SAMPLE_SECONDS = (
    0.05  # a timed sample repeats short calls until it lasts about this long: clocks and schedulers jitter
)
_FEWEST = 3  # samples of each call, however long they take: a spread needs that many


def alternate(
    calls: Sequence[Call], runs: int, device: torch.device, limit: float = math.inf, sample: float = _SAMPLE_SECONDS
) -> list[list[float]]:
    """Milliseconds per call, `runs` samples of each, taken in turns (A B C A B C) after a warm-up.

    `limit`: no new round begins after that many seconds, once there are three samples of each. `sample`: seconds that
    a sample should last; a short call is repeated for it.
    """
    import torch

    samples: list[list[float]] = [[] for _ in calls]
    with torch.inference_mode():
        for call in calls:
            call()  # packs weights, fills caches
        repeats = [math.ceil(sample / max(seconds(call, device), 1e-6)) for call in calls]
        begun = time.perf_counter()
        for done in range(runs):
            if done >= _FEWEST and time.perf_counter() - begun > limit:
                break
            for call, count, found in zip(calls, repeats, samples, strict=True):
                found.append(1000 * seconds(call, device, count) / count)
    return samples


def seconds(call: Call, device: torch.device, count: int = 1) -> float:
    """Of `count` calls in a row, with the work they queued done."""
    _wait(device)
    begun = time.perf_counter()
    for _ in range(count):
        call()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    """Wait for work that was queued on an accelerator; the CPU is never behind."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
