"""`clipq sensitivity`: what each precision does to each block of a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..resources import check_output_path
from . import show
from .options import add_calibration, add_model, add_plot, calibration_of, load_baseline, names

if TYPE_CHECKING:
    from ..mixing.sensitivity import Sensitivity


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "sensitivity",
        help="what each precision does to each block",
        description="Put each block of a model alone into each precision, and compare the embeddings with fp32's, "
        "without labels. Then the noise after every block, with the whole tower in a precision.",
        epilog="example: clipq sensitivity ViT-B-32/openai --calibration photos/ --plot",
    )
    add_model(parser)
    help = "precisions to try, with commas between (default: %(default)s)"
    parser.add_argument("--precisions", metavar="NAMES", default="fp16,int8,int8-weight-only", help=help)
    add_calibration(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="keep all numbers, as JSON lines")
    add_plot(parser, "draw them", "clipq-sensitivity.svg")
    parser.set_defaults(run=run, baseline=None)


def run(args: argparse.Namespace) -> int:
    from .. import plots
    from ..description import model_name
    from ..mixing.sensitivity import sensitivity

    if args.plot:
        plots.check_plot(args.plot)
    if args.output:
        check_output_path(args.output)
    model = load_baseline(args)
    found = sensitivity(model, names(args.precisions), calibration=calibration_of(args))
    _print(found)
    if args.output:
        show.note(f"the numbers: {found.save(args.output).resolve()}")
    if args.plot:
        figure = plots.sensitivities(found, model_name(model))
        show.note(f"the plot: {plots.save(figure, args.plot).resolve()}")
    return 0


def _print(found: Sensitivity) -> None:
    precisions = list(dict.fromkeys(one.precision for one in found.effects))
    kl = {(one.tower, one.unit, one.precision): one for one in found.effects}
    noise = {(one.tower, one.block, one.precision): one.noise for one in found.noise}
    rows = []
    for tower, unit in dict.fromkeys((one.tower, one.unit) for one in found.effects):
        cells = [_cell(kl.get((tower, unit, one)), noise.get((tower, unit, one))) for one in precisions]
        rows.append((tower, unit, *cells))
    show.table(("tower", "unit", *(f">{one}" for one in precisions)), rows)
    print("divergence of the answers in nats when the unit alone has the precision; noise after it when all have")


def _cell(effect: object, noise: float | None) -> str:
    kl = "-" if effect is None else f"{effect.kl:.1e}"
    return kl if noise is None else f"{kl}; {show.percent(noise)}"
