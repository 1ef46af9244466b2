"""`clipq embed`: pictures or texts in, one matrix out, with names and in order."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..inputs.scaling import DECODE
from ..matrices.folders import MANIFEST
from ..vectors.codes import DTYPES
from ..work.work import remove_kept
from .adding import add_to_file, add_to_folder
from .options import add_model, add_precision, load_model, positive, refuse_to_overwrite
from .reading import add_engine, add_input, inputs_of
from .reporting import report_broken, report_ranges, report_rows
from .sharding import in_shards

if TYPE_CHECKING:
    from ..matrices import Embeddings
    from ..models import Model

_DEFAULTS = {"dtype": "float32", "normalize": True, "decode": DECODE}
"""Of a new output; those of one that is there hold for what is added to it."""


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "embed",
        help="embed a folder of pictures or a file of texts",
        description="Embed every picture below a folder, every line of a text file, or the rows of tables and tars. "
        "Killed and started again with the same arguments, it goes on where it stopped and writes the same file; or, "
        "with --shard-size or --engine, the same folder of numbered files, which takes memory for one of them at any "
        "number of inputs.",
        epilog="example: clipq embed ViT-B-32 photos/ -o photos.safetensors",
    )
    add_model(parser)
    add_input(parser)
    help = "FILE.safetensors, FILE.npy or FILE.parquet; with --shard-size or --engine the name of a folder"
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help=help)
    add_precision(parser, towers=True)
    parser.add_argument("--batch-size", metavar="N", type=positive, default=32, help="per call (default: %(default)s)")
    parser.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, help="scale to unit length (default: yes)"
    )
    help = "what the vectors are kept as: %(choices)s (default: float32)"
    parser.add_argument("--dtype", choices=DTYPES, help=help)
    help = (
        "int8 and ubinary: take the ranges of this earlier file of the same model, or of its rows if it is float32 "
        "(default: those of clipq's own photos or everyday words)"
    )
    parser.add_argument("--ranges", metavar="FILE", type=Path, help=help)
    add_engine(parser)
    parser.add_argument("--strict", action="store_true", help="exit with 1 if an input could not be read")
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    help = "add what an existing FILE lacks, by name, made as its rows were; refused for another vector space"
    there.add_argument("--add", action="store_true", help=help)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    is_there = (args.output / MANIFEST).is_file(), args.output.is_file()
    if args.add and any(is_there):
        return (add_to_folder if is_there[0] else add_to_file)(args)
    for name, value in _DEFAULTS.items():
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    return in_shards(args) if args.shard_size or args.engine else _whole(args)


def _whole(args: argparse.Namespace) -> int:
    from ..embedding import embed
    from ..matrices import check_output, save_embeddings

    if args.format:
        raise DataError("--format is of the files of --shard-size; the ending of -o says the format of a single file.")
    if args.workers:
        raise DataError("--workers are of an engine, which makes a folder of files; add --engine, or leave it out.")
    check_output(args.output)
    refuse_to_overwrite(args.output, args.force)
    inputs = inputs_of(args)
    check_output(args.output, inputs.names)
    model, arguments = _prepared(args)
    unfinished = args.output.with_name(f"{args.output.name}.unfinished")
    found = embed(model, inputs, resume=unfinished, **arguments)
    if found is None:  # under `accelerate launch`, the main process writes
        return 0
    save_embeddings(found, args.output)
    remove_kept(found.kept)
    return _report(found, args)


def _prepared(args: argparse.Namespace) -> tuple[Model, dict[str, Any]]:
    """The model, and the arguments that whole matrices and shards share."""
    from ..matrices import read_ranges

    ranges = read_ranges(args.ranges) if args.ranges else None
    arguments = {"batch_size": args.batch_size, "normalize": args.normalize, "dtype": args.dtype, "ranges": ranges}
    return load_model(args), arguments


def _report(found: Embeddings, args: argparse.Namespace) -> int:
    rows, broken = len(found.matrix), found.broken
    report_rows(rows, found.about, args.output)
    report_ranges(found.about, rows, found.ranges)
    return report_broken(broken.items(), rows, len(broken), args.strict)
