"""`clipq demo`: the embedded model in int8 beside its fp32 self, as a verdict, numbers and a page of pictures."""

from __future__ import annotations

import argparse
import shlex
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..description import precision_name, weight_bytes
from ..resources import check_output_path, output_path
from . import show
from .options import add_precision, add_threads, use_threads
from .showcase.asked import Asked, asked

if TYPE_CHECKING:
    from ..models import Model
    from .showcase.page import Shown
    from .showcase.series import Series

MODEL, OUTPUT = "clipq-tiny", Path("clipq-demo.html")
_LISTED = 12  # of a visitor's pictures, in the terminal


@dataclass(frozen=True)
class Scope:
    """How much is looked at: drawings, the visitor's pictures, timed samples, and the batch sizes they are of."""

    drawings: int
    pictures: int
    samples: int
    batch_sizes: tuple[int, ...]


FULL = Scope(200, 200, 5, (1, 16))
QUICK = Scope(48, 24, 3, (1, 4))


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "demo",
        help="the embedded model, int8 against fp32, as a page of pictures",
        description=f"Runs the embedded model {MODEL} on photos and drawings that it was never trained on, or on your "
        "own pictures, in fp32 and in int8; prints the difference, and writes a page with pictures and answers. Needs "
        "no network.",
        epilog='example: clipq demo photos/ --labels "a cat,a dog,a tree"',
    )
    help = f"your own pictures (at most {FULL.pictures} of a folder, evenly spaced)"
    parser.add_argument("pictures", metavar="PHOTO_OR_FOLDER", nargs="?", type=Path, help=help)
    help = "the names to choose from, with commas between them (default: the 1,000 names of ImageNet)"
    parser.add_argument("--labels", metavar="NAMES", help=help)
    add_precision(parser)
    help = "the page to write (default: %(default)s)"
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, default=OUTPUT, help=help)
    help = f"{QUICK.drawings} drawings or {QUICK.pictures} of your pictures, and shorter timing"
    parser.add_argument("--quick", action="store_true", help=help)
    add_threads(parser)
    parser.add_argument("--open", action="store_true", help="show the page in the browser")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    begun, scope = time.perf_counter(), QUICK if args.quick else FULL
    found = asked(args.pictures, args.labels, scope.pictures)
    check_output_path(args.output)
    if found is not None and found.labels is None:
        show.note('clipq: choosing among the 1,000 names of ImageNet; name your own with --labels "a cat,a dog"')
    from .showcase.page import page

    shown = _measured(args, scope, found, begun)
    with output_path(args.output) as temporary:
        temporary.write_text(page(shown), encoding="utf-8", errors="replace")  # names of files need not be UTF-8
    _print(shown)
    print(f"\nthe page: {args.output.resolve()} (all of it took {time.perf_counter() - begun:.1f} s)")
    if args.open:
        webbrowser.open(args.output.resolve().as_uri())
    return 0


def _measured(args: argparse.Namespace, scope: Scope, found: Asked | None, begun: float) -> Shown:
    from ..benchmark import benchmark
    from ..loading.load import load
    from .showcase.page import Shown
    from .showcase.series import of_pictures
    from .showcase.verdict import verdict

    use_threads(args)
    model, baseline = load(MODEL, args.precision), load(MODEL, "fp32")
    if found is None:
        series = _own_tasks(model, baseline, scope)
    else:
        series = [of_pictures(args.pictures, found, model, baseline)]
    times = benchmark(model, baseline, scope.batch_sizes, scope.samples)
    size = weight_bytes(baseline), weight_bytes(model)
    facts = _facts(args, times, time.perf_counter() - begun)
    return Shown(verdict(precision_name(times["model"]), series, times, size), series, times, _scale(baseline), facts)


def _own_tasks(model: Model, baseline: Model, scope: Scope) -> list[Series]:
    """All photos and some of the drawings that come with clipq."""
    from ..evaluation import load_task
    from .showcase.series import of_task

    photos, drawings = load_task("photos"), load_task("drawings")
    return [of_task(photos, model, baseline), of_task(drawings, model, baseline, scope.drawings)]


def _scale(model: Model) -> float:
    """The model's own factor from cosines to logits."""
    return float(model.module.logit_scale.detach().exp())


def _facts(args: argparse.Namespace, times: dict[str, Any], seconds: float) -> list[tuple[str, str]]:
    """When, where, with what and by which command."""
    machine, model = times["environment"], times["model"]
    cores = f"{machine['threads']} of {machine['cores']} cores"
    return [
        ("Date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("Machine", f"{machine['processor']}, {cores}; kernels: {model['kernel_path']}"),
        ("Model", f"{model['name']}, {precision_name(model)}; fingerprint {model['fingerprint'][:16]}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())),
        ("Took", f"{seconds:.1f} s, with loading and all imports"),
        ("Command", command(args)),
    ]


def command(args: argparse.Namespace) -> str:
    """The command as it can be typed again."""
    words = ["clipq", "demo", *([str(args.pictures)] if args.pictures else [])]
    words += ["--labels", args.labels] if args.labels else []
    words += ["--precision", args.precision] if args.precision != "int8" else []
    words += ["--quick"] if args.quick else []
    words += ["--threads", str(args.threads)] if args.threads else []
    words += ["-o", str(args.output)] if args.output != OUTPUT else []
    return shlex.join(words)


def _print(shown: Shown) -> None:
    from .showcase.numbers import heading, rows, unsteady

    print(f"{shown.verdict.sentence()}\n")
    if text := unsteady(shown.times):
        print(f"{text}\n")
    for one in shown.series:
        if one.results is None:
            _print_answers(one, shown)
    what, *columns = heading(shown.verdict.precision)
    show.table((what, *(f">{name}" for name in columns)), rows(shown.verdict, shown.series, shown.times))
    for name, value in shown.facts[:2]:
        print(f"{name.lower()}: {value}")


def _print_answers(series: Series, shown: Shown) -> None:
    from ..inputs.images import spread
    from .showcase.cards import answers

    table = [
        (
            _printable(series.own.keys[row]),
            *(_first(answers(series, one, row, shown.scale)) for one in (series.base, series.own)),
        )
        for row in spread(series.n, _LISTED)
    ]
    show.table(("picture", "fp32", shown.verdict.precision), table)
    for name, reason in series.broken.items():
        show.note(f"clipq: left out {name}: {reason}")


def _printable(name: str) -> str:
    return name.encode(errors="replace").decode()


def _first(found: Sequence[tuple[str, float]]) -> str:
    name, share = found[0]
    return f"{name} ({100 * share:.0f} %)"
