"""`clipq finetune`: a float model and pictures in, one quantized file out, trained to embed as the model does."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import show
from .options import (
    add_model,
    add_precision,
    check_model_path,
    load_baseline,
    positive,
    precision_of,
    refuse_to_overwrite,
)
from .quantize import size_on_disk

if TYPE_CHECKING:
    from ..training.options import Drift, Options

_MODES = ("light", "full")
_AUTOCAST = ("no", "bf16", "fp16")
_LOSSES = {"cosine": 1.0, "similarity": 0.0, "contrastive": 0.0}


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "finetune",
        help="quantize a model and train it to embed as before",
        description="Quantization-aware training, without labels: the quantized model learns to embed the pictures "
        "below a folder, and texts, as the float model does. Killed and started again with the same arguments, it goes "
        "on where it stopped and writes the same file.",
        epilog="example: clipq finetune ViT-B-32/openai -o vit-b-32-int8.safetensors --image int8 --text fp16 "
        "--data photos/",
    )
    add_model(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the file to write")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        required=True,
        help="pictures of the kind that will be embedded; NAME.txt beside each is its caption",
    )
    parser.add_argument("--texts", metavar="FILE", type=Path, help="texts, one a line (default: captions, or words)")
    add_precision(parser, towers=True)
    _add_training(parser)
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    parser.set_defaults(run=run, baseline=None)


def _add_training(parser: argparse.ArgumentParser) -> None:
    shown = "%(default)s"
    parser.add_argument("--mode", choices=_MODES, default="light", help=f"full: weights too (default: {shown})")
    parser.add_argument("--steps", metavar="N", type=positive, default=200, help=f"(default: {shown})")
    parser.add_argument("--batch-size", metavar="N", type=positive, default=16, help=f"of a step (default: {shown})")
    parser.add_argument("--lr", metavar="RATE", type=float, help="learning rate (default: the mode's)")
    parser.add_argument("--autocast", choices=_AUTOCAST, default="no", help=f"precision of products (default: {shown})")
    for name, weight in _LOSSES.items():
        help = f"weight of the {name} loss (default: {weight:g})"
        parser.add_argument(f"--{name}", metavar="WEIGHT", type=float, default=weight, help=help)
    parser.add_argument("--every", metavar="N", type=positive, default=25, help=f"steps between lines ({shown})")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help=f"of order and views (default: {shown})")


def run(args: argparse.Namespace) -> int:
    refuse_to_overwrite(args.output, args.force)
    check_model_path(args.output)
    from ..training.finetuning import finetune

    precision, seen = precision_of(args), []
    unfinished = args.output.with_name(f"{args.output.name}.unfinished")
    model = finetune(
        load_baseline(args),
        precision,
        _data(args, precision),
        steps=args.steps,
        mode=args.mode,
        lr=args.lr,
        resume=unfinished,
        options=_options(args, seen),
    )
    if not _is_main(model.device.type):  # under `accelerate launch`, the main process writes
        return 0
    return _write(model, args.output, unfinished, seen)


def _write(model: Any, output: Path, unfinished: Path, seen: list[Drift]) -> int:
    from ..files.saving import save

    save(model, output)
    shutil.rmtree(unfinished, ignore_errors=True)
    for tower in seen[0].drift if seen else ():
        first, best = seen[0].drift[tower], min(seen, key=lambda one: sum(one.drift.values())).drift[tower]
        print(f"{tower}: 1 - cosine to fp32 {first:.2e} -> {best:.2e} on what was held out")
    print(f"{show.size(size_on_disk(output))}: {output}")
    return 0


def _data(args: argparse.Namespace, precision: Any) -> dict[str, Path]:
    """What each tower that is quantized learns on."""
    from ..arithmetic.precisions import per_tower

    given = {"image": args.data, "text": args.texts}
    float_towers = [tower for tower, scheme in per_tower(precision).items() if scheme.is_float and tower == "image"]
    return {tower: path for tower, path in given.items() if path is not None and tower not in float_towers}


def _options(args: argparse.Namespace, seen: list[Drift]) -> Options:
    from ..training.options import Options

    return Options(
        batch_size=args.batch_size,
        losses={name: getattr(args, name) for name in _LOSSES},
        autocast=args.autocast,
        every=args.every,
        seed=args.seed,
        tell=seen.append,
    )


def _is_main(device_type: str) -> bool:
    from ..work.processes import launched

    return launched(device_type).is_main
