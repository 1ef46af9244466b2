"""Options of what is embedded and by whom, which several ways of `clipq embed` share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..engines.table import ENGINES
from ..inputs.listing import Inputs
from ..inputs.scaling import DECODE, DECODES
from ..inputs.table_columns import STRINGS
from ..matrices.folders import SHARD_FORMATS
from .options import positive, precision_of

if TYPE_CHECKING:
    from ..embedding import Embedder

SHARD_SIZE = 10_000


def add_input(parser: argparse.ArgumentParser) -> None:
    """INPUT, --column, --as, --names and --decode."""
    help = (
        "a folder of pictures, a text file (one text a line), or parquet files or webdataset tars: one, a folder of "
        "them, or a pattern in quotes, also by URL (s3://, gs://, https://, ...)"
    )
    parser.add_argument("input", metavar="INPUT", help=help)
    help = "of parquet files: the column of pictures (bytes or paths) or texts (default: the one that it must be)"
    parser.add_argument("--column", metavar="NAME", help=help)
    help = "what the strings in that column are: %(choices)s (default: what they look like)"
    parser.add_argument("--as", dest="as_", choices=STRINGS, help=help)
    help = "of parquet files: the column that names the rows (default: name, key, id, ..., else FILE#ROW)"
    parser.add_argument("--names", metavar="NAME", help=help)
    help = (
        "JPEGs: exact decodes every pixel; scaled lets the decoder reduce those that are more than four times the "
        f"model's size to at least twice that (default: {DECODE})"
    )
    parser.add_argument("--decode", choices=DECODES, help=help)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """--shard-size, --format, --engine and --workers."""
    help = f"write a folder of numbered files of N inputs each, with a manifest (with --engine: {SHARD_SIZE})"
    parser.add_argument("--shard-size", metavar="N", type=positive, help=help)
    help = "of such a folder, the format of the files: %(choices)s (default: safetensors; with --engine parquet)"
    parser.add_argument("--format", choices=SHARD_FORMATS, help=help)
    help = "who makes such a folder: %(choices)s; each writes the same bytes (default: local)"
    parser.add_argument("--engine", choices=ENGINES, help=help)
    help = "processes of the engine, of --threads each (default: local 1; ray and daft as many as there are CPUs)"
    parser.add_argument("--workers", metavar="N", type=positive, help=help)


def inputs_of(args: argparse.Namespace) -> Inputs:
    """What INPUT names, listed."""
    return Inputs.of(args.input, args.decode, args.column, args.names, args.as_, args.output)


def embedder_of(args: argparse.Namespace) -> Embedder:
    """The model that the arguments name, to be loaded wherever it is needed."""
    from ..embedding import Embedder

    return Embedder(
        args.model,
        precision=precision_of(args),
        pretrained=args.pretrained,
        device=args.device,
        cache_dir=args.cache_dir,
        threads=args.threads,
        batch_size=args.batch_size,
        normalize=args.normalize,
        decode=args.decode,
        dtype=args.dtype,
    )
