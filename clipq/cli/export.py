"""`clipq export`: a model in, a folder for another runtime out, with the parity that was measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..resources import check_output_folder
from . import show
from .options import add_calibration, add_model, add_precision, calibration_of, load_model, names

if TYPE_CHECKING:
    from ..exports.exporting import Export

_TARGETS = ("onnx", "openvino", "mnn", "tensorrt", "compressed-tensors")
_LAYOUTS = ("plain", "together", "immich", "transformers.js")


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "export",
        help="write a model for ONNX Runtime, OpenVINO, MNN, TensorRT, ...",
        description="Write a model as a folder that another runtime reads, run it there beside the model on pictures "
        "and captions, and keep the folder only where both give the same embeddings.",
        epilog="example: clipq export ViT-B-32/openai --to onnx -o vit-b-32-onnx",
    )
    add_model(parser)
    parser.add_argument("--to", choices=_TARGETS, required=True, help="the runtime: %(choices)s")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="a folder, new or empty")
    add_precision(parser, towers=True)
    parser.add_argument("--towers", type=names, metavar="NAMES", help="image or text alone (default: all it has)")
    parser.add_argument(
        "--layout",
        choices=_LAYOUTS,
        default="plain",
        help="how files are called and what lies beside them: %(choices)s (default: plain)",
    )
    parser.add_argument("--opset", type=int, metavar="N", help="of ONNX (default: 18; 19 for TensorRT)")
    add_calibration(parser)
    parser.add_argument("--no-timing", action="store_true", help="compare embeddings, but not speed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    check_output_folder(args.output)
    from ..exports.exporting import export

    found = export(
        load_model(args),
        args.output,
        args.to,
        towers=args.towers,
        layout=args.layout,
        opset=args.opset,
        data=calibration_of(args),
        timed=not args.no_timing,
    )
    _print(found)
    return 0


def _print(found: Export) -> None:
    rows = []
    for tower, parity in found.parity.items():
        times = [f"{ms:.1f} / {parity.clipq_ms[size]:.1f}" for size, ms in parity.ms.items()]
        rows.append((tower, str(parity.count), f"{parity.mean:.5f}", f"{parity.worst:.5f}", *times))
    batches = [f">ms at batch {size}, there / clipq" for size in next(iter(found.parity.values())).ms]
    show.table(("tower", ">inputs", ">mean cosine", ">worst", *batches), rows)
    if found.report["note"]:
        show.note(found.report["note"])
    graphs = sum(size for name, size in found.files.items() if not name.endswith((".json", ".txt")))
    print(f"{show.size(graphs)} in {found.report['seconds']:.0f} s: {found.folder}")
