"""How fast, and in how much memory? Always against the fp32 self, in the same run, on the same machine."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from .description import described_environment, described_model
from .errors import ClipqError
from .machine import peak_memory_bytes
from .timing import Call, alternate
from .work.processes import Processes

if TYPE_CHECKING:
    import torch

    from .models import Model

_TEXT = (
    "a photo of a black cat that sits on an old wooden bench in the sun beside a small red ball and watches the birds "
    "which hop about on the lawn of a quiet park behind the town hall while two children run past"
)


def benchmark(model: Model, baseline: Model, batch_sizes: Sequence[int] = (1, 8, 32), runs: int = 10) -> dict[str, Any]:
    """Milliseconds per call and items per second of each tower at each batch size, `model` beside `baseline`.

    The two take turns (A B A B ...), so that a machine that slows down slows both. Reported are the median of `runs`
    samples, their range, and the ratio of the medians. Preprocessing and tokenization are not timed.
    Returns a JSON-able dict: "model", "baseline", "rows", "runs", "environment".
    Raises `ClipqError` if a batch size or `runs` is below 1.
    """
    if runs < 1 or not batch_sizes or min(batch_sizes) < 1:
        raise ClipqError(f"runs={runs}, batch_sizes={tuple(batch_sizes)}: all must be whole numbers of at least 1.")
    rows = [
        _row(tower, size, [_encoder(one, tower, size) for one in (model, baseline)], runs, model.device)
        for tower in model.towers
        for size in batch_sizes
    ]
    return {
        "model": described_model(model),
        "baseline": described_model(baseline),
        "rows": rows,
        "runs": runs,
        "environment": described_environment(Processes()),
    }


def memory(loading: Mapping[str, Any], batch_size: int) -> dict[str, float]:
    """What one model needs: load and run it in a fresh process and ask the system.

    loading: the arguments of `clipq.load`. Returns "load_seconds", and in bytes "idle" (after importing the libraries),
    "loaded" (the most while loading) and "peak" (after a batch of `batch_size` through every tower); on CUDA also
    "device_peak". Resident memory; 0 where the system does not say.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measure_memory, dict(loading), batch_size).result()


def _measure_memory(loading: dict[str, Any], batch_size: int) -> dict[str, float]:
    import open_clip  # noqa: F401  (before "idle": libraries are not the model)
    import torch

    from .loading.load import load

    idle, begun = peak_memory_bytes(), time.perf_counter()
    model = load(**loading)
    seconds, loaded = time.perf_counter() - begun, peak_memory_bytes()
    with torch.inference_mode():
        for tower in model.towers:
            _encoder(model, tower, batch_size)()
    found = {"load_seconds": seconds, "idle": idle, "loaded": loaded, "peak": peak_memory_bytes()}
    if model.device.type == "cuda":
        found["device_peak"] = torch.cuda.max_memory_allocated(model.device)
    return found


def _encoder(model: Model, tower: str, batch_size: int) -> Call:
    """A call that embeds one batch of made-up input."""
    if tower == "text":
        tokens = model.tokenizer(captions(batch_size)).to(model.device)
        return lambda: model.encode_text(tokens)
    import torch
    from PIL import Image

    shape = model.preprocess(Image.new("RGB", (256, 256))).shape
    pixels = torch.randn(batch_size, *shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    return lambda: model.encode_image(pixels)


def captions(count: int) -> list[str]:
    """`count` captions of 6 to 40 words, of mixed lengths and no two alike (equal ones would be encoded once)."""
    words = _TEXT.split()
    return [" ".join([*words[: 5 + (17 * i + 8) % 35], str(i)]) for i in range(count)]


def _row(tower: str, batch_size: int, calls: Sequence[Call], runs: int, device: torch.device) -> dict[str, Any]:
    own, base = alternate(calls, runs, device)
    return {
        "tower": tower,
        "batch_size": batch_size,
        "ms": _summary(own),
        "baseline_ms": _summary(base),
        "items_per_second": 1000 * batch_size / statistics.median(own),
        "baseline_items_per_second": 1000 * batch_size / statistics.median(base),
        "speedup": statistics.median(base) / statistics.median(own),
    }


def _summary(samples: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples)}
