"""Is int8 worth it here? A two-second race of fp32, bf16 and int8 on a small random CLIP, and what follows from it."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from .. import kernels
from ..arithmetic.precisions import TOWERS, check_towers
from ..errors import ClipqWarning
from ..methods.quantization import quantize
from ..models import Model
from ..timing import Call, alternate, seconds

CANDIDATES = ("fp32", "bf16", "int8")
"""From the most accurate to the least: where two are equally fast, the first of them is chosen."""

_MARGIN = 1.05  # a smaller lead does not come back in the next run, even where the samples of one lie close together
_HOPELESS = 2.0  # times as long as fp32: not raced any further (bf16 on CPUs that only emulate it)
_MOST_RUNS = 100
_CALLS = 12  # the least that a race makes, counted as calls of fp32: a batch must be small enough for them


@dataclass(frozen=True)
class Sizes:
    """The model that is timed: ViT-B-32's widths and lengths, fewer layers, few words."""

    layers: int = 2
    embed_dim: int = 512
    image_size: int = 224
    patch_size: int = 32
    image_width: int = 768
    text_width: int = 512
    head_width: int = 64
    context_length: int = 77
    vocab_size: int = 512
    batch_size: int = 4

    def only(self, tower: str) -> Sizes:
        """The same with the other tower as small as it can be."""
        return replace(self, **{f"{other}_width": self.head_width for other in TOWERS if other != tower})


@dataclass(frozen=True)
class Timing:
    """One precision of one tower, in milliseconds per batch: the median, and the quartiles as its spread.

    `speed` is fp32's time divided by this one's. The milliseconds are None where a probe already took so long that no
    more was measured; `speed` is the probe's then.
    """

    precision: str
    speed: float
    ms: float | None = None
    low: float | None = None
    high: float | None = None

    def beats(self, other: Timing) -> bool:
        """Faster beyond the spread: the middle halves of the samples do not overlap, and the medians differ by 5 %."""
        if self.ms is None or other.ms is None:
            return self.ms is not None
        return self.high < other.low and self.ms * _MARGIN <= other.ms


@dataclass(frozen=True)
class TowerWorth:
    """The race of one tower ("image" or "text"), a timing for each of `CANDIDATES`, and which of them to use."""

    tower: str
    batch_size: int
    timings: tuple[Timing, ...]
    choice: str

    def timing(self, precision: str) -> Timing:
        """That of one of `CANDIDATES`."""
        return next(one for one in self.timings if one.precision == precision)


@dataclass(frozen=True)
class Worth:
    """What was measured on `device` with `threads` processor threads, and one sentence of advice."""

    device: str
    threads: int
    kernel: str
    towers: tuple[TowerWorth, ...]
    advice: str

    @property
    def choice(self) -> dict[str, str]:
        """The precision to use for each tower measured, such as {"image": "int8", "text": "int8"}."""
        return {one.tower: one.choice for one in self.towers}

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"choice": self.choice}


def measure(
    device: str | torch.device = "cpu",
    towers: Sequence[str] = TOWERS,
    *,
    limit: float = 2.0,
    sizes: Sizes | None = None,
) -> Worth:
    """Time fp32, bf16 and int8 in turns on `device`, for about `limit` seconds in all, and say which one to use.

    `sizes`: of the model and the batch; default ViT-B-32's widths with two layers, and a batch of 4 (200 rows, which is
    enough for full speed), on accelerators of 64; slow machines get a smaller one.
    The answer for a device and a number of threads is kept as long as the process lives.
    Raises `UnknownNameError` for a tower that is not "image" or "text".
    """
    device = torch.device(device)
    check_towers(towers)
    sizes = sizes or Sizes(batch_size=4 if device.type == "cpu" else 64)
    threads = torch.get_num_threads()
    found = tuple(_race(tower, str(device), threads, limit / len(TOWERS), sizes) for tower in towers)
    kernel = kernels.label(kernels.chosen(device))
    return Worth(str(device), threads, kernel, found, advice(found, kernel, missing(device)))


def choose(timings: Sequence[Timing]) -> str:
    """The precision to use, of timings in the order of `CANDIDATES`.

    One counts only if it beats all more accurate ones; so of two that are equally fast, the more accurate one is used.
    """
    return [one for i, one in enumerate(timings) if all(one.beats(better) for better in timings[:i])][-1].precision


def missing(device: torch.device) -> str:
    """Why the native library does not run on a CPU; empty if it does, and for other devices."""
    state = kernels.why(device).get("native", "available") if device.type == "cpu" else "available"
    return "" if state in ("chosen", "available") else state


def advice(towers: Sequence[TowerWorth], kernel: str, missing: str = "") -> str:
    """One sentence: how fast int8 is next to fp32, whether that is worth it, and if not, why not."""
    plural = {"image": "images", "text": "texts"}
    speeds = [f"{one.timing('int8').speed:.2f} x" for one in towers]
    speeds[0] += " as fast as fp32"
    speed = " and ".join(f"{text} for {plural[one.tower]}" for text, one in zip(speeds, towers, strict=True))
    won = [plural[one.tower] for one in towers if one.choice == "int8"]
    without = f"clipq's native library is missing ({missing}), so int8 runs on {kernel}" if missing else ""
    if len(won) == len(towers):
        verdict = f"worth it, although {without}" if without else "worth it"
    elif won:
        verdict = f"worth it for {won[0]} only" + (f"; {without}" if without else "")
    else:
        verdict = f"not worth it for speed, only for size: {without or _why_slow(towers, kernel)}"
    return f"int8 is {speed} here: {verdict}."


def _why_slow(towers: Sequence[TowerWorth], kernel: str) -> str:
    if any(one.choice == "bf16" for one in towers):
        return "bf16 is as fast or faster, and more accurate"
    return f"its kernels ({kernel}) gain nothing on this processor that is more than noise"


@cache
def _race(tower: str, device_name: str, threads: int, limit: float, sizes: Sizes) -> TowerWorth:
    """`threads` is part of the question: another number may have another answer."""
    device = torch.device(device_name)
    encoders = _encoders(tower, device, sizes.only(tower))
    begun = time.perf_counter()
    probed = 1 if device.type == "cpu" else sizes.batch_size  # one item would time an accelerator's launches only
    slow, base = _hopeless({name: encoder(probed) for name, encoder in encoders.items()}, device)
    count = max(min(sizes.batch_size, int(limit * probed / (_CALLS * base))), 1)
    raced = [name for name in CANDIDATES if name not in slow]
    left = max(limit - (time.perf_counter() - begun), 0)
    calls = [encoders[name](count) for name in raced]
    samples = dict(zip(raced, alternate(calls, _MOST_RUNS, device, limit=left, sample=limit / 50), strict=True))
    fp32 = statistics.median(samples["fp32"])
    timings = tuple(
        _timing(name, samples[name], fp32) if name in samples else Timing(name, slow[name]) for name in CANDIDATES
    )
    return TowerWorth(tower, count, timings, choose(timings))


def _timing(precision: str, samples: Sequence[float], base: float) -> Timing:
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(precision, base / median, median, low, high)


def _hopeless(calls: Mapping[str, Call], device: torch.device) -> tuple[dict[str, float], float]:
    """The speed of those far behind fp32, found out with a call or two of each; and the seconds of fp32."""
    base = _probe(calls["fp32"], device)
    took = {name: _probe(calls[name], device, _HOPELESS * base) for name in CANDIDATES[1:]}
    return {name: base / one for name, one in took.items() if one > _HOPELESS * base}, base


def _probe(call: Call, device: torch.device, enough: float = 0.0) -> float:
    """Seconds of the first call, or of a second one if the first, which prepares things, took more than `enough`."""
    first = seconds(call, device)
    return first if first <= enough else min(first, seconds(call, device))


def _encoders(tower: str, device: torch.device, sizes: Sizes) -> dict[str, Callable[[int], Call]]:
    """For each precision a function from a number of items to a call that embeds as many."""
    module, inputs = _module(sizes), _INPUTS[tower](sizes).to(device)
    models = {name: _model(module, tower, name, device) for name in CANDIDATES}

    def encoder(model: Model) -> Callable[[int], Call]:
        encode = model.encode_image if tower == "image" else model.encode_text
        return lambda count: lambda: encode(inputs[:count])

    return {name: encoder(model) for name, model in models.items()}


def _model(module: nn.Module, tower: str, precision: str, device: torch.device) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipqWarning)  # that int8 is slow here is what is being found out
        return quantize(Model(deepcopy(module).to(device)), {tower: precision})


def _module(sizes: Sizes) -> nn.Module:
    import open_clip

    shared = {"layers": sizes.layers}
    image = {"width": sizes.image_width, "head_width": sizes.head_width, "patch_size": sizes.patch_size}
    text = {"width": sizes.text_width, "heads": sizes.text_width // sizes.head_width, "vocab_size": sizes.vocab_size}
    with torch.random.fork_rng(devices=[]):  # a measurement must not change what the caller draws next
        return open_clip.CLIP(
            sizes.embed_dim,
            {**shared, **image, "image_size": sizes.image_size},
            {**shared, **text, "context_length": sizes.context_length},
        ).eval()


def _pixels(sizes: Sizes) -> Tensor:
    shape = (sizes.batch_size, 3, sizes.image_size, sizes.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _captions(sizes: Sizes) -> Tensor:
    """Token ids [batch, context] of different texts of 8 to 20 tokens, as captions have, then zeros."""
    shape, last = (sizes.batch_size, sizes.context_length), sizes.vocab_size - 1
    ids = torch.randint(1, last, shape, generator=torch.Generator().manual_seed(0))
    ends = (7 + torch.arange(sizes.batch_size) * 5 % 13).clamp(max=sizes.context_length - 1)
    place = torch.arange(sizes.context_length)
    ids[place > ends[:, None]] = 0
    ids[place == ends[:, None]] = last  # CLIP pools where the largest id is
    return ids


_INPUTS = {"image": _pixels, "text": _captions}
