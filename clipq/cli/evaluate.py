"""`clipq eval`: how many pictures are named right, and what quantization changed."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SchemeError
from ..resources import check_output_folder, check_output_path
from . import show
from .options import add_model, add_plot, add_precision, baseline_of, load_baseline, load_model, positive

if TYPE_CHECKING:
    from ..evaluation import Result, Task
    from ..models import Model


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "eval",
        help="evaluate a model on a task, and against its fp32 self",
        description="Zero-shot classification. With --baseline the fp32 model is evaluated in the same run, and the "
        "difference is reported with its interval.",
        epilog="example: clipq eval clipq-tiny --task drawings --baseline",
    )
    add_model(parser)
    parser.add_argument("--task", metavar="T", required=True, help="a task's name, or a .toml file of your own")
    parser.add_argument("--data", metavar="DIR", help="local images: class folders, .tar or .parquet files")
    add_precision(parser, towers=True)
    parser.add_argument(
        "--baseline",
        nargs="?",
        const="",
        metavar="OTHER",
        help="compare with MODEL's fp32 self, or with another model in fp32, or with the fp32 result in a .jsonl file",
    )
    parser.add_argument("--limit", metavar="N", type=positive, help="at most N images, spread over the classes")
    parser.add_argument("--batch-size", metavar="N", type=positive, default=32, help="per call (default: %(default)s)")
    parser.add_argument("--resume", metavar="DIR", type=Path, help="keep finished work here, and go on from it")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="append the result to FILE (one JSON a line)")
    help = "draw sizes, agreement, cosines and the pictures with other answers (with --baseline)"
    add_plot(parser, help, "clipq-eval.svg")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..evaluation import load_task

    task = load_task(args.task)
    _check(args, task)
    model, baseline = load_model(args), _baseline(args, task)
    result, baseline = _evaluated(args, task, model, baseline)
    if result is None:  # under `accelerate launch`, the main process reports
        return 0
    _show(args, result, task, baseline)
    return 0


def _evaluated(
    args: argparse.Namespace, task: Task, model: Model, baseline: Model | Result | None
) -> tuple[Result | None, Model | Result | None]:
    """The result and what it was compared with: for a plot that is a result too, with its answers."""
    from ..evaluation import Result, evaluate

    options = {"data": args.data, "limit": args.limit, "batch_size": args.batch_size, "resume": args.resume}
    if not args.plot or isinstance(baseline, Result):
        return evaluate(model, task, baseline=baseline, **options), baseline
    base = evaluate(baseline, task, **options)
    result = evaluate(model, task, baseline=base, **options)
    if result is None:
        return None, None
    return replace(result, seconds=round(result.seconds + base.seconds, 3)), base


def _show(args: argparse.Namespace, result: Result, task: Task, baseline: Result | Model | None) -> None:
    """Keep the result, print it and draw it, as far as that was asked for."""
    try:
        result = result.append(args.output) if args.output else result
    finally:  # where it cannot be kept, it is at least shown
        if args.json:
            show.as_json(json.loads(result.to_json()))
        else:
            report(result)
    if args.plot:
        _plot(args, result, task, baseline)


def _plot(args: argparse.Namespace, result: Result, task: Task, baseline: Result) -> None:
    from .. import plots

    figure = plots.evaluation(result, baseline, task=task, data=args.data, others=_others(args))
    show.note(f"the plot: {plots.save(figure, args.plot).resolve()}")


def _others(args: argparse.Namespace) -> list[Result]:
    """Results in the files that --baseline and --output name."""
    from ..evaluation import read_results

    files = [Path(args.baseline)] if _names_results(args.baseline) else []
    if args.output and args.output.exists():
        files.append(args.output)
    return [result for file in dict.fromkeys(files) for result in read_results(file)]


def _check_plot(args: argparse.Namespace) -> None:
    from .. import plots

    if args.baseline is None:
        raise SchemeError(
            "--plot draws what changed against fp32, and there is nothing to compare with; add --baseline"
        )
    plots.check_plot(args.plot)
    _others(args)


def _check(args: argparse.Namespace, task: Task) -> None:
    """Raise before a model is loaded what would come after it: places that cannot be written, data and results that
    cannot be read.
    """
    from ..evaluation.data import task_images
    from ..evaluation.results import read_baseline

    if args.plot:
        _check_plot(args)
    if args.output:
        check_output_path(args.output)
        check_output_folder(args.output.with_name(f"{args.output.name}.answers"))
    if args.resume:
        check_output_folder(args.resume)
    if args.data is not None:
        task_images(task, args.data)
    if _names_results(args.baseline):
        read_baseline(args.baseline, task.name)
    elif args.baseline is not None:
        baseline_of(args)


def _names_results(baseline: str | None) -> bool:
    return baseline is not None and baseline.endswith(".jsonl")


def _baseline(args: argparse.Namespace, task: Task) -> Model | Result | None:
    """What --baseline says: nothing, a result in a file, or a model."""
    from ..evaluation.results import read_baseline

    if args.baseline is None:
        return None
    return read_baseline(args.baseline, task.name) if _names_results(args.baseline) else load_baseline(args)


def report(result: Result) -> None:
    """Print a result, with its comparison if it has one."""
    from ..evaluation.report import TOWER_COLUMNS, cost, measured, tower_cells

    show.facts(measured(result))
    if result.comparison:
        print()
        show.facts(cost(result))
    if cells := tower_cells(result):
        show.table([name if "tower" in name else f">{name}" for name in TOWER_COLUMNS], cells)
    for name, reason in result.broken["names"].items():
        show.note(f"clipq: left out {name}: {reason}")
