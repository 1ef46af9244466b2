"""`clipq bench`: milliseconds and memory, against the model's fp32 self in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..description import precision_name
from ..errors import ClipqError
from ..inputs.listing import Inputs
from . import show
from .options import (
    add_model,
    add_plot,
    add_precision,
    baseline_of,
    load_baseline,
    load_model,
    loading_of,
    positive,
    positives,
)


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "bench",
        help="time a model against its fp32 self",
        description="Latency, throughput and memory per batch size, for images and texts, against the same model in "
        "fp32. The two take turns; medians are compared. Preprocessing is not timed; with --files all is that "
        "stands between a file and its normalized embedding.",
        epilog="example: clipq bench ViT-B-32 --batch-sizes 1,32",
    )
    add_model(parser)
    add_precision(parser, towers=True)
    parser.add_argument("--baseline", metavar="MODEL", help="the fp32 model (default: MODEL's fp32 self)")
    help = "images or texts per call (default: 1,8,32)"
    parser.add_argument("--batch-sizes", metavar="N,N", type=positives, default=(1, 8, 32), help=help)
    parser.add_argument("--runs", metavar="N", type=positive, default=10, help="timed samples (default: %(default)s)")
    parser.add_argument("--no-memory", action="store_true", help="skip memory (it loads both models once more)")
    add_plot(parser, "draw the times", "clipq-bench.svg")
    help = "inputs a second from files: a folder of pictures, or a text file, one text a line"
    parser.add_argument("--files", metavar="FOLDER", type=Path, help=help)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return _run_files(args) if args.files else _run_batches(args)


def _run_files(args: argparse.Namespace) -> int:
    from ..file_benchmark import benchmark_files

    if args.plot:
        raise ClipqError("--plot draws times by batch size, which --files does not measure; leave one of them out.")
    inputs = Inputs.of(args.files)
    baseline_of(args)
    model, baseline = load_model(args), load_baseline(args)
    report = benchmark_files(model, baseline, inputs, args.runs, max(args.batch_sizes))
    if args.json:
        show.as_json(report)
    else:
        _print_files(report)
    return 0


def _print_files(report: dict[str, Any]) -> None:
    each = ("encode", "wait", "decode", "preprocess")
    headings = ("precision", "decode", ">per second", ">min-max", ">faster", *(f">{what} ms" for what in each))
    show.table(headings, [_file_cells(row, each) for row in report["rows"]])
    own, machine = report["model"], report["environment"]
    print(f"{machine['processor']}, {machine['threads']} threads; kernel path {own['kernel_path']}")
    print(
        f"{report['inputs']} {report['tower']}s, batches of {report['batch_size']}; medians of {report['runs']} passes"
    )
    print("ms of each input: encode and wait by the clock, decode and preprocess of a core, in threads ahead of it")


def _file_cells(row: dict[str, Any], each: Sequence[str]) -> tuple[str, ...]:
    rate = row["per_second"]
    times = (f"{row['ms'][what]:.2f}" if what in row["ms"] else "" for what in each)
    span = f"{rate['min']:.1f}-{rate['max']:.1f}"
    return (row["precision"], row["decode"] or "", f"{rate['median']:.1f}", span, f"{row['speedup']:.2f}x", *times)


def _run_batches(args: argparse.Namespace) -> int:
    from .. import plots
    from ..benchmark import benchmark, memory

    if args.plot:
        plots.check_plot(args.plot)
    baseline_of(args)  # where there is none, that is found before MODEL is loaded
    model, baseline = load_model(args), load_baseline(args)
    report = benchmark(model, baseline, args.batch_sizes, args.runs)
    if not args.no_memory:
        del model, baseline
        largest = max(args.batch_sizes)
        report["memory"] = memory(loading_of(args), largest)
        report["baseline_memory"] = memory(baseline_of(args), largest)
    if args.json:
        show.as_json(report)
    else:
        _print(report)
    if args.plot:
        show.note(f"the plot: {plots.save(plots.bench(report), args.plot).resolve()}")
    return 0


def _print(report: dict[str, Any]) -> None:
    own, machine = report["model"], report["environment"]
    show.table(
        ("tower", ">batch", f">{precision_name(own)} ms", ">min-max", ">fp32 ms", ">min-max", ">per second", ">faster"),
        [_cells(row) for row in report["rows"]],
    )
    if "memory" in report:
        show.table(
            ("process", ">load s", ">libraries", ">after loading (peak)", ">after a batch (peak)"),
            [_memory_cells(precision_name(own), report["memory"]), _memory_cells("fp32", report["baseline_memory"])],
        )
    where = machine["gpu"] if own["device"].startswith("cuda") else machine["processor"]
    print(
        f"{where}, {machine['threads']} threads; kernel path {own['kernel_path']}; torch {machine['versions']['torch']}"
    )
    print(f"medians of {report['runs']} samples each, the two models in turns")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    times = [cell for key in ("ms", "baseline_ms") for cell in _time(row[key])]
    return (row["tower"], str(row["batch_size"]), *times, f"{row['items_per_second']:.1f}", f"{row['speedup']:.2f}x")


def _time(ms: dict[str, float]) -> tuple[str, str]:
    return f"{ms['median']:.2f}", f"{ms['min']:.2f}-{ms['max']:.2f}"


def _memory_cells(name: str, found: dict[str, float]) -> tuple[str, ...]:
    return (name, f"{found['load_seconds']:.1f}", *(show.size(found[key]) for key in ("idle", "loaded", "peak")))
