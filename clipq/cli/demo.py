"""`clipq demo`: the embedded model in int8 beside its fp32 self, as numbers and as a page of pictures."""

from __future__ import annotations

import argparse
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..resources import check_output_path, output_path
from . import show
from .options import add_precision, add_threads, use_threads, weight_bytes

if TYPE_CHECKING:
    from ..evaluation import Result, Task
    from ..models import Model

MODEL, TASK = "clipq-tiny", "drawings"
_BATCH_SIZES = (1, 32)
_TIMED_SAMPLES = 7
_QUICK = 200


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "demo",
        help="the embedded model, int8 against fp32, as a page of pictures",
        description=f"Runs the embedded model {MODEL} on drawings in a style it was never trained on, in fp32 and in "
        "int8, prints what the difference is, and writes a page with pictures and answers. Needs no network.",
    )
    add_precision(parser)
    help = "the page to write (default: %(default)s)"
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path("clipq-demo.html"), help=help)
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} drawings, and one prompt for each name")
    add_threads(parser)
    parser.add_argument("--open", action="store_true", help="show the page in the browser")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..benchmark import benchmark
    from ..evaluation import evaluate
    from ..loading.load import load
    from .page import page

    check_output_path(args.output)
    use_threads(args)
    task, limit, samples = _scope(args.quick)
    model, baseline = load(MODEL, args.precision), load(MODEL, "fp32")
    base = evaluate(baseline, task, limit=limit)
    own = evaluate(model, task, limit=limit, baseline=base)
    times = benchmark(model, baseline, _BATCH_SIZES, samples)
    rows = [_row(base, baseline, times, "baseline_ms"), _row(own, model, times, "ms")]
    with output_path(args.output) as temporary:
        temporary.write_text(page(own, base, task, rows, _machine(times), _scale(baseline)), encoding="utf-8")
    _print(own, rows, times)
    print(f"\nthe page: {args.output.resolve()}")
    if args.open:
        webbrowser.open(args.output.resolve().as_uri())
    return 0


def _scope(quick: bool) -> tuple[Task, int | None, int]:
    """The task, the number of drawings (None: all) and of timed samples."""
    from ..evaluation import load_task

    task = load_task(TASK)
    if not quick:
        return task, None, _TIMED_SAMPLES
    return replace(task, name=f"{TASK}-quick", templates=task.templates[:1]), _QUICK, 1


def _row(result: Result, model: Model, times: dict[str, Any], key: str) -> dict[str, str]:
    """What one of the two models did, as it is shown in the terminal and on the page."""
    same = result.comparison["agreement"] if result.comparison else 1.0
    row = {
        "precision": show.precision(result.model),
        "top-1": show.percent(result.metrics["top1"]),
        "top-5": show.percent(result.metrics["top5"]),
        "same answer as fp32": show.percent(same),
        "weights": show.size(weight_bytes(model)),
    }
    for found in times["rows"]:
        plural = "s" if found["batch_size"] > 1 else ""
        row[f"ms for {found['batch_size']} {found['tower']}{plural}"] = f"{found[key]['median']:.2f}"
    return row


def _scale(model: Model) -> float:
    """The model's own factor from cosines to logits."""
    return float(model.module.logit_scale.exp())


def _machine(times: dict[str, Any]) -> str:
    found = times["environment"]
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    kernel = times["model"]["kernel_path"]
    return f"{found['processor']}, {threads}, torch {found['versions']['torch']}, int8 kernels: {kernel}"


def _print(own: Result, rows: list[dict[str, str]], times: dict[str, Any]) -> None:
    found = own.comparison
    print(f"{own.n} drawings in a style the model has never seen, {own.n_classes} concepts to choose from")
    show.table(tuple(name if name == "precision" else f">{name}" for name in rows[0]), (row.values() for row in rows))
    low, high = found["drop_interval_points"]
    print(f"drop: {found['drop_points']:.2f} points of top-1 (95 % interval {low:.2f} to {high:.2f})")
    print(f"image embeddings: cosine to fp32 {found['image_cosine']['mean']:.5f} (mean)")
    print(_machine(times))
