"""`clipq quantize`: a model in, one quantized safetensors file out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..description import weight_bytes
from ..errors import SchemeError
from . import show
from .options import (
    add_calibration,
    add_model,
    add_plot,
    add_precision,
    calibration_of,
    check_model_path,
    load_baseline,
    names,
    precision_of,
    refuse_to_overwrite,
)

if TYPE_CHECKING:
    from ..methods.coverage import Coverage
    from ..mixing.mixtures import Mixture
    from ..models import Model


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "quantize",
        help="quantize a model and save it",
        description="Quantize a model, say what became integers and what did not, and save it as one .safetensors file "
        "(or, where FILE has no such ending, as a folder for the hub).",
        epilog="example: clipq quantize ViT-B-32/openai -o vit-b-32-int8.safetensors",
    )
    add_model(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the file to write")
    add_precision(parser, towers=True)
    add_calibration(parser)
    _add_mixed(parser)
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    parser.set_defaults(run=run, baseline=None)


def _add_mixed(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    help = "quantize as a TOML file says, module by module (see clipq.read_schemes)"
    group.add_argument("--scheme", metavar="TOML", type=Path, help=help)
    help = "choose the precision of each block so that at most so many points of top-1 are lost, as estimated"
    group.add_argument("--max-drop", metavar="POINTS", type=float, help=help)
    group.add_argument("--max-size", metavar="SIZE", help="... so that all tensors take at most SIZE, such as 80MB")
    group.add_argument("--max-ms", metavar="MS", type=float, help="... so that one input takes at most so long here")
    parser.add_argument(
        "--candidates", metavar="NAMES", type=names, help="precisions to choose from, with commas between"
    )
    parser.add_argument("--scheme-output", metavar="TOML", type=Path, help="write what was chosen, to be edited")
    add_plot(parser, "draw what there was to choose from within a budget", "clipq-front.svg")


def run(args: argparse.Namespace) -> int:
    refuse_to_overwrite(args.output, args.force)
    check_model_path(args.output)
    from .. import plots
    from ..arithmetic.scheme_files import read_schemes, write_schemes
    from ..files.saving import save
    from ..methods.coverage import coverage
    from ..methods.quantization import quantize
    from ..mixing.mixing import quantize_as

    budget = _budget_of(args)
    if args.plot:
        plots.check_plot(args.plot)
    given = precision_of(args) if args.scheme is None else read_schemes(args.scheme)
    model = load_baseline(args)
    before = weight_bytes(model)
    if budget:
        model = quantize_as(model, _chosen(args, model, budget), calibration_of(args))
    else:
        model = quantize(model, given, calibration=calibration_of(args))
    if args.scheme_output:
        write_schemes(model.recipe.schemes, args.scheme_output)
    _print_coverage(coverage(model))
    save(model, args.output)
    after = size_on_disk(args.output)
    print(f"{show.size(before)} fp32 -> {show.size(after)}, {before / after:.2f}x smaller: {args.output}")
    return 0


def _budget_of(args: argparse.Namespace) -> dict[str, float | str]:
    """The one limit that is given, if any. Raises `SchemeError` for what only goes with one."""
    limits = {"max_drop": args.max_drop, "max_size": args.max_size, "max_ms": args.max_ms}
    budget = {kind: limit for kind, limit in limits.items() if limit is not None}
    if not budget and (args.candidates or args.plot):
        raise SchemeError("--candidates and --plot go with a budget: --max-drop, --max-size or --max-ms.")
    if budget:
        from ..mixing.budgets import Budget

        Budget.of(budget)
    return budget


def _chosen(args: argparse.Namespace, model: Model, budget: dict[str, float | str]) -> Mixture:
    """What was chosen within the budget, after a table and a picture of what else there was."""
    from .. import plots
    from ..description import model_name
    from ..mixing.mixing import mix

    settled = {tower: getattr(args, tower) for tower in model.towers if getattr(args, tower)}
    precision = {**dict.fromkeys(model.towers, "mixed"), **settled}
    found = mix(model, budget, precision=precision, candidates=args.candidates, calibration=calibration_of(args))
    show.table(("", ">size", ">time", ">KL, nats", "units"), found.rows())
    values = found.measured
    drop, changed = f"{values['drop']:.2f} points", show.percent(values["changed"])
    print(f"*, on data that the search did not see: cosine {values['cosine']:.4f}, {changed} changed, drop {drop}")
    if args.plot:
        path = plots.save(plots.front(found, model_name(model)), args.plot)
        show.note(f"the plot: {path.resolve()}")
    return found


def _print_coverage(found: Coverage) -> None:
    rows = [
        (
            name,
            show.number(tower.matrix_weights),
            show.percent(tower.weight_share, 1),
            show.percent(tower.block_share, 1),
            "not counted" if tower.mac_share is None else show.percent(tower.mac_share, 1),
            f"{tower.bits_per_weight:.2f}" if tower.quantized_weights else "-",
        )
        for name, tower in found.towers.items()
    ]
    show.table(("tower", ">matrix weights", ">quantized", ">in blocks", ">multiply-adds", ">bits a weight"), rows)
    left = [(item.name, f"{item.weights:,}", item.why) for tower in found.towers.values() for item in tower.left_float]
    if left:
        show.table(("left float", ">weights", "why"), left)


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of a folder's weights."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.glob("*.safetensors"))
