"""What `clipq embed` says once its work is done."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..description import precision_name

if TYPE_CHECKING:
    from ..vectors.ranges import Ranges
    from ..work.spent import Spent

_MUCH = 0.02  # of the values: ranges that so many do not fit are of something else
_UNEVEN = 2.0  # from about here on, per-dimension ranges are the better ones (measure_vectors.py --offset)


def report_rows(rows: int, about: Mapping[str, Any], output: object) -> None:
    kept = "" if about["dtype"] == "float32" else f", kept as {about['dtype']}"
    print(f"{rows} {about['tower']} embeddings of width {about['width']} in {precision_name(about)}{kept}: {output}")


def report_time(rows: int, broken: int, spent: Spent, seconds: float) -> None:
    """Rows a second of this run (those that stood finished count for nothing), and seconds by what they went into.

    Those are the sum of all workers; decoding and preprocessing of a core, encoding by the clock.
    """
    parts = (("decoding", "decode"), ("preprocessing", "preprocess"), ("encoding", "encode"))
    spent_on = ", ".join(f"{word} {spent.seconds.get(key, 0.0):.1f}" for word, key in parts)
    print(f"{rows} rows, {broken} bad rows; {spent.rows / seconds:.1f} rows a second; seconds: {spent_on}")


def report_broken(broken: Iterable[tuple[str, str]], rows: int, count: int, strict: bool) -> int:
    for name, reason in broken:
        print(f"clipq: left out {name or 'a line'}: {reason}", file=sys.stderr)
    if count:
        print(f"clipq: {count} of {rows + count} inputs could not be read", file=sys.stderr)
    return 1 if count and strict else 0


def report_ranges(about: Mapping[str, Any], rows: int, ranges: Ranges | None) -> None:
    """Where the ranges are from, and how much lay outside of them."""
    if "ranges" not in about:
        return
    print(f"ranges: {about['ranges']['origin']} ({about['ranges']['rows']})")
    dtype, stored = about["dtype"], rows * (-(-about["width"] // 8) if about["dtype"] == "ubinary" else about["width"])
    share = about["saturated"] / stored
    if dtype != "ubinary":
        print(f"outside the ranges, and so saturated: {about['saturated']} values ({100 * share:.3g} %)")
    if dtype == "int8" and ranges is not None and ranges.unevenness > _UNEVEN:
        what = f"a few dimensions are {ranges.unevenness:.1f} times as wide as most"
        print(f"clipq: {what}; --dtype int8-per-dimension keeps more of the others", file=sys.stderr)
    if share > _MUCH:
        advice = "embed some of these as float32 and name that file with --ranges"
        print(f"clipq: {100 * share:.3g} % of the values do not fit the ranges; {advice}", file=sys.stderr)
