"""`clipq embed`: pictures or texts in, one matrix out, with names and in order."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..description import precision_name
from ..errors import DataError
from ..inputs.listing import Inputs
from ..inputs.scaling import DECODE, DECODES
from ..matrices.folders import SHARD_FORMATS
from ..vectors.codes import DTYPES
from .options import add_model, add_precision, load_model, positive, refuse_to_overwrite

if TYPE_CHECKING:
    from ..matrices import Embeddings
    from ..models import Model
    from ..vectors.ranges import Ranges

_MUCH = 0.02  # of the values: ranges that so many do not fit are of something else
_UNEVEN = 2.0  # from about here on, per-dimension ranges are the better ones (measure_vectors.py --offset)


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "embed",
        help="embed a folder of pictures or a file of texts",
        description="Embed every picture below a folder, or every line of a text file. Killed and started again with "
        "the same arguments, it goes on where it stopped and writes the same file; or, with --shard-size, the same "
        "folder of numbered files, which takes memory for one of them at any number of inputs.",
        epilog="example: clipq embed ViT-B-32 photos/ -o photos.safetensors",
    )
    add_model(parser)
    parser.add_argument(
        "input", metavar="INPUT", type=Path, help="a folder of pictures, or a text file, one text a line"
    )
    help = "FILE.safetensors, FILE.npy or FILE.parquet; with --shard-size the name of a folder"
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help=help)
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
    _add_reading(parser)
    parser.add_argument("--strict", action="store_true", help="exit with 1 if an input could not be read")
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    parser.set_defaults(run=run)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    help = (
        "JPEGs: exact decodes every pixel; scaled lets the decoder reduce those that are more than four times the "
        "model's size to at least twice that (default: %(default)s)"
    )
    parser.add_argument("--decode", choices=DECODES, default=DECODE, help=help)
    help = "write a folder of numbered files of N inputs each, with a manifest"
    parser.add_argument("--shard-size", metavar="N", type=positive, help=help)
    help = "with --shard-size, the format of the files: %(choices)s (default: safetensors)"
    parser.add_argument("--format", choices=SHARD_FORMATS, help=help)


def run(args: argparse.Namespace) -> int:
    return _in_shards(args) if args.shard_size else _whole(args)


def _whole(args: argparse.Namespace) -> int:
    from ..embedding import embed
    from ..matrices import check_output, save_embeddings

    if args.format:
        raise DataError("--format is of the files of --shard-size; the ending of -o says the format of a single file.")
    check_output(args.output)
    refuse_to_overwrite(args.output, args.force)
    inputs = Inputs.of(args.input, args.decode)
    check_output(args.output, inputs.names)
    model, arguments = _prepared(args)
    unfinished = args.output.with_name(f"{args.output.name}.unfinished")
    found = embed(model, inputs, resume=unfinished, **arguments)
    if found is None:  # under `accelerate launch`, the main process writes
        return 0
    save_embeddings(found, args.output)
    _clear(found.kept)
    return _report(found, args)


def _in_shards(args: argparse.Namespace) -> int:
    from ..embedding import embed_into
    from ..matrices.folders import ShardedFolder, read_broken, read_shards

    into = ShardedFolder(args.output, args.shard_size, args.format or "safetensors")
    into.check(args.force)
    inputs = Inputs.of(args.input, args.decode)
    model, arguments = _prepared(args)
    about = embed_into(model, inputs, into, **arguments)
    if about is None:
        return 0
    _report_rows(about["rows"], about, f"{args.output} ({len(about['shards'])} shards)")
    _report_ranges(about, about["rows"], next(read_shards(args.output)).ranges if "ranges" in about else None)
    return _report_broken(read_broken(args.output), about["rows"], about["broken"], args.strict)


def _prepared(args: argparse.Namespace) -> tuple[Model, dict[str, Any]]:
    """The model, and the arguments that whole matrices and shards share."""
    from ..matrices import read_ranges

    ranges = read_ranges(args.ranges) if args.ranges else None
    arguments = {"batch_size": args.batch_size, "normalize": args.normalize, "dtype": args.dtype, "ranges": ranges}
    return load_model(args), arguments


def _clear(kept: Path | None) -> None:
    """Remove this run's shards; those of a run with other arguments, which nobody has finished yet, stay."""
    if kept is not None:
        shutil.rmtree(kept, ignore_errors=True)
        with suppress(OSError):  # not empty
            kept.parent.rmdir()


def _report(found: Embeddings, args: argparse.Namespace) -> int:
    rows, broken = len(found.matrix), found.broken
    _report_rows(rows, found.about, args.output)
    _report_ranges(found.about, rows, found.ranges)
    return _report_broken(broken.items(), rows, len(broken), args.strict)


def _report_rows(rows: int, about: Mapping[str, Any], output: object) -> None:
    kept = "" if about["dtype"] == "float32" else f", kept as {about['dtype']}"
    print(f"{rows} {about['tower']} embeddings of width {about['width']} in {precision_name(about)}{kept}: {output}")


def _report_broken(broken: Iterable[tuple[str, str]], rows: int, count: int, strict: bool) -> int:
    for name, reason in broken:
        print(f"clipq: left out {name or 'a line'}: {reason}", file=sys.stderr)
    if count:
        print(f"clipq: {count} of {rows + count} inputs could not be read", file=sys.stderr)
    return 1 if count and strict else 0


def _report_ranges(about: Mapping[str, Any], rows: int, ranges: Ranges | None) -> None:
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
