"""`clipq eval`: how many pictures are named right, and what quantization changed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import show
from .options import add_model, add_precision, load_baseline, load_model, positive

if TYPE_CHECKING:
    from ..evaluation import Result
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
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..evaluation import evaluate, load_task

    task = load_task(args.task)  # a wrong name is found before any model is loaded
    model, baseline = load_model(args), _baseline(args)
    options = {"data": args.data, "limit": args.limit, "batch_size": args.batch_size, "resume": args.resume}
    result = evaluate(model, task, baseline=baseline, **options)
    if result is None:  # under `accelerate launch`, the main process reports
        return 0
    if args.output:
        result = result.append(args.output)
    if args.json:
        show.as_json(json.loads(result.to_json()))
    else:
        report(result)
    return 0


def _baseline(args: argparse.Namespace) -> Model | Path | None:
    """What --baseline says: nothing, a file of results, or a model."""
    if args.baseline is None:
        return None
    return Path(args.baseline) if args.baseline.endswith(".jsonl") else load_baseline(args)


def report(result: Result) -> None:
    """Print a result, with its comparison if it has one."""
    show.facts(_measured(result))
    if result.comparison:
        print()
        show.facts(_cost(result.comparison))
    if result.towers:
        cells = [(cell["image"], cell["text"], *_shares(cell)) for cell in result.towers]
        show.table(("image tower", "text tower", ">top-1", ">agreement"), cells)
    for name, reason in result.broken["names"].items():
        show.note(f"clipq: left out {name}: {reason}")


def _shares(cell: dict[str, Any]) -> tuple[str, str]:
    return show.percent(cell["top1"]), show.percent(cell["agreement"])


def _measured(result: Result) -> list[tuple[str, object]]:
    metrics = result.metrics
    rows = [
        ("model", f"{result.model['name']} ({show.precision(result.model)})"),
        ("task", f"{result.task} version {result.task_version}: {result.n} images, {result.n_classes} classes"),
        ("top-1", f"{show.percent(metrics['top1'])} (95 % interval {_between(metrics['top1_interval'])})"),
        ("top-5", "" if metrics["top5"] is None else show.percent(metrics["top5"])),
        ("mean per-class recall", show.percent(metrics["mean_per_class_recall"])),
        ("broken images", result.broken["count"] or ""),
        ("kernel path", result.model["kernel_path"]),
        ("time", f"{result.seconds:.1f} s"),
    ]
    return [row for row in rows if row[1] != ""]


def _between(interval: list[float]) -> str:
    return " to ".join(show.percent(bound) for bound in interval)


def _cost(found: dict[str, Any]) -> list[tuple[str, object]]:
    low, high = found["drop_interval_points"]
    recovery = found["recovery"]
    return [
        ("fp32 top-1", show.percent(found["baseline_metrics"]["top1"])),
        ("drop", f"{found['drop_points']:.2f} points (95 % interval {low:.2f} to {high:.2f})"),
        ("McNemar's p", f"{found['mcnemar_p']:.3g} ({found['lost']} lost, {found['gained']} gained)"),
        ("same top-1 answer", show.percent(found["agreement"])),
        ("recovery", "undefined" if recovery is None else show.percent(recovery)),
        ("image cosine to fp32", _cosine(found["image_cosine"])),
        ("text cosine to fp32", _cosine(found["text_cosine"])),
    ]


def _cosine(found: dict[str, float]) -> str:
    return f"mean {found['mean']:.5f}, 1st percentile {found['p1']:.5f}, min {found['min']:.5f}"
