"""`clipq embed`: pictures or texts in, one matrix out, with names and in order."""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..description import precision_name
from .options import add_model, add_precision, load_model, positive, refuse_to_overwrite

if TYPE_CHECKING:
    from ..matrices import Embeddings


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
    parser.add_argument("--strict", action="store_true", help="exit with 1 if an input could not be read")
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..embedding import Inputs, embed
    from ..matrices import check_output, save_embeddings

    check_output(args.output)
    refuse_to_overwrite(args.output, args.force)
    inputs = Inputs.of(args.input)
    check_output(args.output, inputs.names)
    model = load_model(args)
    unfinished = args.output.with_name(f"{args.output.name}.unfinished")
    found = embed(model, inputs, batch_size=args.batch_size, normalize=args.normalize, resume=unfinished)
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
    rows, width = found.matrix.shape
    print(f"{rows} {found.about['tower']} embeddings of width {width} in {precision_name(found.about)}: {args.output}")
    for name, reason in found.broken.items():
        print(f"clipq: left out {name or 'a line'}: {reason}", file=sys.stderr)
    if found.broken:
        print(f"clipq: {len(found.broken)} of {rows + len(found.broken)} inputs could not be read", file=sys.stderr)
    return 1 if found.broken and args.strict else 0
