"""`clipq quantize`: a model in, one quantized safetensors file out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..description import weight_bytes
from . import show
from .options import (
    add_model,
    add_precision,
    check_model_path,
    load_baseline,
    precision_of,
    refuse_to_overwrite,
)

if TYPE_CHECKING:
    from ..methods.coverage import Coverage


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "quantize",
        help="quantize a model and save it",
        description="Quantize a model, say what became int8 and what did not, and save it as one .safetensors file "
        "(or, where FILE has no such ending, as a folder for the hub).",
        epilog="example: clipq quantize ViT-B-32/openai -o vit-b-32-int8.safetensors",
    )
    add_model(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the file to write")
    add_precision(parser, towers=True)
    _add_calibration(parser)
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    parser.set_defaults(run=run, baseline=None)


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    help = "a folder of pictures like those to be embedded, for precisions that look at some (default: clipq's photos)"
    parser.add_argument("--calibration", metavar="FOLDER", type=Path, help=help)
    help = "a file with one text a line, for the text tower (default: everyday words)"
    parser.add_argument("--calibration-texts", metavar="FILE", type=Path, help=help)


def calibration_of(args: argparse.Namespace) -> dict[str, Path] | None:
    """What --calibration and --calibration-texts name, by tower."""
    named = {"image": args.calibration, "text": args.calibration_texts}
    return {tower: path for tower, path in named.items() if path is not None} or None


def run(args: argparse.Namespace) -> int:
    refuse_to_overwrite(args.output, args.force)
    check_model_path(args.output)
    from ..files.saving import save
    from ..methods.coverage import coverage
    from ..methods.quantization import quantize

    model = load_baseline(args)
    before = weight_bytes(model)
    model = quantize(model, precision_of(args), calibration=calibration_of(args))
    _print_coverage(coverage(model))
    save(model, args.output)
    after = size_on_disk(args.output)
    print(f"{show.size(before)} fp32 -> {show.size(after)}, {before / after:.2f}x smaller: {args.output}")
    return 0


def _print_coverage(found: Coverage) -> None:
    rows = [
        (
            name,
            show.number(tower.matrix_weights),
            show.percent(tower.weight_share, 1),
            show.percent(tower.block_share, 1),
            "not counted" if tower.mac_share is None else show.percent(tower.mac_share, 1),
        )
        for name, tower in found.towers.items()
    ]
    show.table(("tower", ">matrix weights", ">int8", ">int8 in blocks", ">int8 multiply-adds"), rows)
    left = [(item.name, f"{item.weights:,}", item.why) for tower in found.towers.values() for item in tower.left_float]
    if left:
        show.table(("left float", ">weights", "why"), left)


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of a folder's weights."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.glob("*.safetensors"))
