"""All numbers side by side, fp32 beside the other precision: the table of the terminal and of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import show
from .series import Series
from .verdict import Verdict, speed_in_words

_STEADY = 1.6  # times the shortest of the samples; a quiet machine stays below 1.2

Row = tuple[str, str, str, str]
"""What was measured, in fp32, in the other precision, and the difference."""


def heading(precision: str) -> Row:
    return "", "fp32", precision, f"{precision} against fp32"


def rows(verdict: Verdict, series: Sequence[Series], times: Mapping[str, Any]) -> list[Row]:
    """Of all pictures the accuracy with its chance level and the agreement; then size; then times."""
    found = [row for one in series for row in _series(one)]
    found.append(("weights", *map(show.size, verdict.size), f"{100 * verdict.size[1] / verdict.size[0]:.0f} %"))
    return [*found, *map(_time, times["rows"])]


def _series(series: Series) -> list[Row]:
    from ...evaluation.metrics import cosines

    cosine = cosines(series.own.images, series.base.images)["mean"]
    same = series.n - len(series.changed)
    return [
        *_accuracy(series),
        (f"{series.what}: same first answer", "", f"{same} of {series.n}", show.percent(same / series.n, 1)),
        (f"{series.what}: mean cosine of the embeddings", "", f"{cosine:.5f}", ""),
    ]


def _accuracy(series: Series) -> list[Row]:
    if series.results is None:
        return []
    base, own = (one.metrics for one in series.results)
    found = series.results[1].comparison
    low, high = found["drop_interval_points"]
    lost = f"drop {found['drop_points']:.2f} points (95 %: {low:.2f} to {high:.2f})"
    first = (f"{series.what}: first answer right (chance {chance(series, 1)})", *_shares(base, own, "top1"), lost)
    if base["top5"] is None:
        return [first]
    five = f"{series.what}: among the first five (chance {chance(series, 5)})"
    return [first, (five, *_shares(base, own, "top5"), f"drop {100 * (base['top5'] - own['top5']):.2f} points")]


def _shares(base: Mapping[str, float], own: Mapping[str, float], key: str) -> tuple[str, str]:
    return show.percent(base[key], 1), show.percent(own[key], 1)


def chance(series: Series, first: int) -> str:
    """How often guessing would be right, such as "0.1 %"."""
    return f"{100 * series.chance(first):.2g} %"


def _time(row: Mapping[str, Any]) -> Row:
    count = row["batch_size"]
    what = f"milliseconds for {count} {row['tower']}{'s' if count > 1 else ''}"
    return what, *(f"{row[key]['median']:.2f}" for key in ("baseline_ms", "ms")), speed_in_words(row["speedup"])


def unsteady(times: Mapping[str, Any]) -> str:
    """What to say where times of pictures differ so much that their ratio means little; "" if all is well."""
    rows = [row for row in times["rows"] if row["tower"] == "image"]
    spans = [(row["batch_size"], row[key]) for row in rows for key in ("baseline_ms", "ms")]
    count, widest = max(spans, key=lambda span: span[1]["max"] / span[1]["min"])
    if widest["max"] <= _STEADY * widest["min"]:
        return ""
    what = "pictures" if count > 1 else "picture"
    span = f"{widest['min']:.1f} to {widest['max']:.1f} milliseconds"
    return (
        f"The machine was busy: {count} {what} took {span} in the same run. "
        "Take the speed for no more than a hint, and measure again when nothing else runs."
    )
