"""The verdict: what int8 gave and took, over all pictures that were shown, in numbers and in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .series import Series

_FEW = 0.9  # below this share of equal answers the sentence says "only"
_EQUAL = 0.05  # a speed within this share of fp32's is the same speed
_PARTS = ((1 / 4, "a quarter of the size"), (1 / 3, "a third of the size"), (1 / 2, "half the size"))
_NEAR = 0.08  # a size within this share of such a part is called that


@dataclass(frozen=True)
class Verdict:
    """same of n: pictures with the same first answer. size: bytes of both, fp32's first. speedups: by batch size, of
    the image tower; `drop` and `interval` in percentage points of top-1, `None` where the truth is not known.
    """

    precision: str
    same: int
    n: int
    size: tuple[int, int]
    speedups: Mapping[int, float]
    drop: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def speedup(self) -> float:
        """The smallest of the image tower's, whatever the batch size."""
        return min(self.speedups.values())

    def sentence(self) -> str:
        """One sentence for people, which says as much where the numbers are bad."""
        few = "only " if self.same < _FEW * self.n else ""
        pictures = "the one picture" if self.n == self.same == 1 else f"{few}{self.same} of {self.n} pictures"
        return (
            f"{self.precision} gives the same answer as fp32 on {pictures}, {speed_in_words(self.speedup)}, "
            f"{_size_in_words(self.size)}, measured on this machine just now"
        )


def verdict(precision: str, series: Sequence[Series], times: Mapping[str, Any], size: tuple[int, int]) -> Verdict:
    """Over the pictures of all `series` together; `times` are those of `benchmark`."""
    n = sum(one.n for one in series)
    same = n - sum(len(one.changed) for one in series)
    speedups = {row["batch_size"]: row["speedup"] for row in times["rows"] if row["tower"] == "image"}
    return Verdict(precision, same, n, size, speedups, *_drop(series))


def _drop(series: Sequence[Series]) -> tuple[float, tuple[float, float]] | tuple[None, None]:
    """In points of top-1, over all pictures together, with the 95 % interval of a paired difference (Tango 1998)."""
    from ...evaluation.statistics import drop_interval

    if any(one.results is None for one in series):
        return None, None
    found = [one.results[1].comparison for one in series]
    lost, gained, n = (sum(one[key] for one in found) for key in ("lost", "gained", "n"))
    low, high = drop_interval(lost, gained, n)
    return 100 * (lost - gained) / n, (100 * low, 100 * high)


def speed_in_words(speedup: float) -> str:
    """ "3.9 times faster", "1.4 times slower", "at the same speed"."""
    if abs(speedup - 1) <= _EQUAL:
        return "at the same speed"
    return f"{speedup:.1f} times faster" if speedup > 1 else f"{1 / speedup:.1f} times slower"


def _size_in_words(size: tuple[int, int]) -> str:
    share = size[1] / size[0]
    near = [words for part, words in _PARTS if abs(share / part - 1) <= _NEAR]
    return f"in {near[0]}" if near else f"in {100 * share:.0f} % of the size"
