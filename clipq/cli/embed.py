"""`clipq embed`: pictures or texts in, one matrix out, with names and in order."""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..description import precision_name
from ..vectors.codes import DTYPES
from .options import add_model, add_precision, load_model, positive, refuse_to_overwrite

if TYPE_CHECKING:
    from ..matrices import Embeddings

_MUCH = 0.02  # of the values: ranges that so many do not fit are of something else
_UNEVEN = 2.0  # from about here on, per-dimension ranges are the better ones (measure_vectors.py --offset)


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "embed",
        help="embed a folder of pictures or a file of texts",
        description="Embed every picture below a folder, or every line of a text file. Killed and started again with "
        "the same arguments, it goes on where it stopped and writes the same file.",
        epilog="example: clipq embed ViT-B-32 photos/ -o photos.safetensors",
    )
    add_model(parser)
    parser.add_argument(
        "input", metavar="INPUT", type=Path, help="a folder of pictures, or a text file, one text a line"
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="FILE.safetensors or FILE.npy")
    add_precision(parser, towers=True)
    parser.add_argument("--batch-size", metavar="N", type=positive, default=32, help="per call (default: %(default)s)")
    parser.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, default=True, help="scale to unit length (default: yes)"
    )
    help = "what the vectors are kept as: %(choices)s (default: %(default)s)"
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help=help)
    help = (
        "int8 and ubinary: take the ranges of this earlier file of the same model, or of its rows if it is float32 "
        "(default: those of clipq's own photos or everyday words)"
    )
    parser.add_argument("--ranges", metavar="FILE", type=Path, help=help)
    parser.add_argument("--strict", action="store_true", help="exit with 1 if an input could not be read")
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..embedding import Inputs, embed
    from ..matrices import check_output, read_ranges, save_embeddings

    check_output(args.output)
    refuse_to_overwrite(args.output, args.force)
    inputs = Inputs.of(args.input)
    check_output(args.output, inputs.names)
    ranges = read_ranges(args.ranges) if args.ranges else None
    model = load_model(args)
    unfinished = args.output.with_name(f"{args.output.name}.unfinished")
    found = embed(
        model,
        inputs,
        batch_size=args.batch_size,
        normalize=args.normalize,
        resume=unfinished,
        dtype=args.dtype,
        ranges=ranges,
    )
    if found is None:  # under `accelerate launch`, the main process writes
        return 0
    save_embeddings(found, args.output)
    _clear(found.kept)
    return _report(found, args)


def _clear(kept: Path | None) -> None:
    """Remove this run's shards; those of a run with other arguments, which nobody has finished yet, stay."""
    if kept is not None:
        shutil.rmtree(kept, ignore_errors=True)
        with suppress(OSError):  # not empty
            kept.parent.rmdir()


def _report(found: Embeddings, args: argparse.Namespace) -> int:
    rows, about = len(found.matrix), found.about
    kept = "" if found.dtype == "float32" else f", kept as {found.dtype}"
    precision = precision_name(about)
    print(f"{rows} {about['tower']} embeddings of width {about['width']} in {precision}{kept}: {args.output}")
    _report_ranges(found)
    for name, reason in found.broken.items():
        print(f"clipq: left out {name or 'a line'}: {reason}", file=sys.stderr)
    if found.broken:
        print(f"clipq: {len(found.broken)} of {rows + len(found.broken)} inputs could not be read", file=sys.stderr)
    return 1 if found.broken and args.strict else 0


def _report_ranges(found: Embeddings) -> None:
    """Where the ranges are from, and how much lay outside of them."""
    if found.ranges is None:
        return
    print(f"ranges: {found.ranges.about['origin']} ({found.ranges.about['rows']})")
    share = found.about["saturated"] / found.matrix.numel()
    if found.dtype != "ubinary":
        print(f"outside the ranges, and so saturated: {found.about['saturated']} values ({100 * share:.3g} %)")
    if found.dtype == "int8" and found.ranges.unevenness > _UNEVEN:
        what = f"a few dimensions are {found.ranges.unevenness:.1f} times as wide as most"
        print(f"clipq: {what}; --dtype int8-per-dimension keeps more of the others", file=sys.stderr)
    if share > _MUCH:
        advice = "embed some of these as float32 and name that file with --ranges"
        print(f"clipq: {100 * share:.3g} % of the values do not fit the ranges; {advice}", file=sys.stderr)
