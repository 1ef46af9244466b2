"""Draw the plots of measured results in README.md and docs/precisions.md from eval/results/.

python scripts/measuring/make_plots.py            # writes docs/plots/*.svg
python scripts/measuring/make_plots.py --check    # exit code 1 if they do not show what it would draw
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from precision_plot import precisions
from result_tables.runs import runs

from clipq.plots import labels, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "eval" / "results"
PLOTS = ROOT / "docs" / "plots"
MODEL = "ViT-B-32"

FAMILIES = ("clipq int8", "OpenVINO", "ONNX Runtime", "torch bf16", "torch fp32")
"""Who has a bar: of the contestants whose name begins so, the fastest."""

_PANELS = (
    ("image", "images", 1, "one image at a time"),
    ("image", "images", 32, "32 images at a time"),
    ("text", "captions", 32, "32 captions at a time"),
)
_WIDTH, _TOP = 8.6, 1.15  # inches: as wide as GitHub shows a page
_SAME = 3e-6  # of 1 - cosine: what is nearer is drawn as the same


def measured(folder: Path = RESULTS) -> dict[str, Any]:
    """The run that the README's table shows too: the newest of the model. Raises `ValueError` if there is none."""
    found = [run for run in runs(folder) if run["model"]["name"] == MODEL]
    if not found:
        raise ValueError(f"{folder} has no run of {MODEL}; measure one with scripts/measuring/bench_peers.py")
    return found[-1]


def rows_of(result: dict[str, Any], tower: str, kind: str, size: int) -> list[dict[str, Any]]:
    """The contestants of one panel."""
    wanted = tower, kind, size
    return [row for row in result["rows"] if (row["tower"], row["input"], row["batch_size"]) == wanted]


def best(rows: Sequence[dict[str, Any]], family: str) -> dict[str, Any] | None:
    """The fastest of a family, or None if none of it was measured."""
    own = [row for row in rows if f"{row['contestant']} ".startswith(f"{family} ")]
    return min(own, key=lambda row: row["ms"]["median"], default=None)


def speed(result: dict[str, Any]) -> Figure:
    """Bars of milliseconds an item, from zero: every family at its best."""
    title = f"{result['model']['name'].replace('-32', '/32')}: milliseconds an item, less is better"
    about = "every library with the fastest of its precisions and settings, which is named; lines from min to max"
    with style.styled():
        figure = style.card(_WIDTH, 3.9, title, about, caption(result))
        for place, (tower, kind, size, name) in enumerate(_PANELS):
            axes = style.axes_at(figure, 1.3 + place * 2.45, _TOP, 2.1, 1.75)
            found = [(family, best(rows_of(result, tower, kind, size), family)) for family in FAMILIES]
            _bars(axes, [(family, row) for family, row in found if row], named=place == 0)
            axes.set_title(name)
    return figure


def _bars(axes: Axes, found: Sequence[tuple[str, dict[str, Any]]], named: bool) -> None:
    times = [{key: value / row["batch_size"] for key, value in row["ms"].items()} for _, row in found]
    medians = [time["median"] for time in times]
    colours = [style.BLUE if family.startswith("clipq") else style.GREY for family, _ in found]
    bars = axes.barh(range(len(found)), medians, 0.62, color=colours, gid="bars")
    style.whiskers(axes, bars, [time["min"] for time in times], [time["max"] for time in times], sideways=True)
    for place, ((family, row), time) in enumerate(zip(found, times, strict=True)):
        precision = row["contestant"].removeprefix(family).strip()
        text = f"{style.digits(time['median'])}{f', {precision}' if precision else ''}"
        axes.annotate(text, (time["max"], place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_yticks(range(len(found)), [family for family, _ in found] if named else [""] * len(found))
    axes.set_xlim(0, max(time["max"] for time in times) * 1.12)
    axes.tick_params(length=0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("milliseconds an item")
    axes.grid(axis="x")


def fidelity(result: dict[str, Any]) -> Figure:
    """Time against cosine to fp32 of every contestant, for images and for captions: left and up is better."""
    title = f"{result['model']['name'].replace('-32', '/32')}: how fast, and how near to fp32"
    about = "up: the same embeddings as torch fp32; left: faster; batch size 32, every contestant that was measured"
    with style.styled():
        figure = style.card(_WIDTH, 4.85, title, about, caption(result))
        panels = {kind: _placed(rows_of(result, tower, kind, 32)) for tower, kind in _TOWERS}
        farthest = max(distance for points in panels.values() for _, distance in points.values())
        for place, (kind, points) in enumerate(panels.items()):
            axes = style.axes_at(figure, 0.95 + place * 3.85, _TOP, 3.5, 2.75)
            _scale(axes, farthest, max(time for time, _ in points.values()), named=place == 0)
            _points(axes, points)
            axes.set_title(kind)
    return figure


_TOWERS = (("image", "images"), ("text", "captions"))


def _placed(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Of every contestant: milliseconds an item, and the distance of its mean cosine from 1."""
    times = {row["contestant"]: row["ms"]["median"] / row["batch_size"] for row in rows if row["cosine"]}
    return {row["contestant"]: (times[row["contestant"]], _distance(row)) for row in rows if row["cosine"]}


def _distance(row: dict[str, Any]) -> float:
    return max(_SAME, 1 - row["cosine"]["mean"])


def _scale(axes: Axes, farthest: float, slowest: float, named: bool) -> None:
    """Both panels have the same cosines, "1" at the top; only the first says them."""
    from matplotlib.ticker import NullLocator

    axes.set_yscale("log")
    axes.set_xlim(0, slowest * 1.15)
    axes.set_ylim(2.5 * farthest, _SAME / 2)
    ticks = [10.0**power for power in range(-5, 0) if _SAME < 10.0**power < 2.5 * farthest]
    names = ["1", *(f"{1 - tick:.{round(-math.log10(tick))}f}" for tick in ticks)]
    axes.set_yticks([_SAME, *ticks], names if named else [""] * len(names))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(length=0)
    axes.grid()
    axes.set_xlabel("milliseconds an item")
    axes.set_ylabel("mean cosine to fp32 (log distance from 1)" if named else "")


def _points(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    for name, (x, y) in points.items():
        colour, size = (style.BLUE, 9) if name.startswith("clipq") else (style.SOFT, 5)
        axes.plot([x], [y], "o", color=colour, markersize=size, gid=f"point-{name.replace(' ', '-')}")
    labels.label(axes, list(points.values()), list(points))


def caption(result: dict[str, Any]) -> list[str]:
    """Weights, samples, machine and versions."""
    versions = {name: v for one in result["contestants"] for name, v in one["versions"].items() if v}
    others = [f"{name} {versions[key]}" for key, name in _SHOWN_VERSIONS.items() if key in versions]
    noisy = " The machine was not quiet." if result.get("noisy") else ""
    weights = "Random weights (cosines depend on them). " if result["weights"] == "random" else ""
    return [
        f"{weights}Captions of mixed lengths. Medians of {result['runs']} samples, all contestants in turns.{noisy}",
        f"{style.machine(result['model'], result['environment'])}, {', '.join(others)}; {result['date'][:10]}.",
    ]


_SHOWN_VERSIONS = {"openvino": "OpenVINO", "nncf": "NNCF", "onnxruntime": "ONNX Runtime"}


def figures() -> dict[str, Figure]:
    """Every plot by its file's name."""
    result = measured()
    return {"speed.svg": speed(result), "fidelity.svg": fidelity(result), "precisions.svg": precisions(RESULTS)}


def texts(svg: str) -> list[str]:
    """What is written in an SVG, in its order: names, numbers, captions. The same data give the same texts."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def changed(folder: Path = PLOTS) -> list[str]:
    """The plots in `folder` that do not say what would be drawn now; another matplotlib may draw another line."""
    with tempfile.TemporaryDirectory() as place:
        fresh = {
            name: save(figure, Path(place) / name).read_text(encoding="utf-8") for name, figure in figures().items()
        }
    return [name for name, svg in fresh.items() if texts((folder / name).read_text(encoding="utf-8")) != texts(svg)]


def main() -> None:
    """Draw or check the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        old = changed()
        said = f"not what eval/results says: {', '.join(old)}; run python scripts/measuring/make_plots.py"
        sys.exit(said if old else 0)
    for name, figure in figures().items():
        print(save(figure, PLOTS / name))


if __name__ == "__main__":
    main()
