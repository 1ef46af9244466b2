"""Options that several commands share, and the models they name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arithmetic.precisions import AUTO, PRECISIONS, TOWERS, Precisions, auto_towers, per_tower
from ..arithmetic.schemes import FALLBACKS
from ..errors import ClipqError, OutputError
from ..resources import check_output_folder, check_output_path
from . import show
from .baseline import float_origin

if TYPE_CHECKING:
    from ..models import Model

MODEL_HELP = (
    "a zoo name (see `clipq list`), an open_clip architecture, hf-hub: or local-dir: name, "
    "a transformers id or folder, or a clipq file or folder"
)


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL, --pretrained, --device, --cache-dir and --threads."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--pretrained", metavar="TAG", help="an open_clip pretrained tag, or a weights file")
    add_machine(parser)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """--device, --cache-dir and --threads."""
    parser.add_argument("--device", default="cpu", help="where to run: cpu, cuda, mps (default: %(default)s)")
    parser.add_argument("--cache-dir", metavar="DIR", type=Path, help="where downloads and built models are kept")
    add_threads(parser)


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", metavar="N", type=positive, help="processor threads (default: torch's choice)")


def use_threads(args: argparse.Namespace) -> None:
    """Apply --threads."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)


def add_precision(parser: argparse.ArgumentParser, towers: bool = False) -> None:
    """--precision, and with `towers` also --image, --text and --fallback."""
    names = (*PRECISIONS, AUTO)
    help = f"one of %(choices)s (default: %(default)s); {AUTO}: fp32, bf16 or int8, by a short measurement"
    parser.add_argument("--precision", choices=names, default="int8", help=help)
    if towers:
        for tower in ("image", "text"):
            parser.add_argument(f"--{tower}", choices=names, help=f"precision of the {tower} tower, if different")
        help = "precision of LayerNorm, softmax and the residual stream: %(choices)s"
        parser.add_argument("--fallback", choices=FALLBACKS, help=help)


def precision_of(args: argparse.Namespace) -> Precisions:
    """What --precision, --image, --text and --fallback together ask for, with "auto" settled (and that said)."""
    return _settled(args, say=True)


def loading_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `clipq.load` for MODEL as the command line gives it; in another process they mean the same."""
    return _loading(args, _settled(args, say=False))


def _loading(args: argparse.Namespace, precision: Precisions) -> dict[str, Any]:
    return {**_place(args), "name_or_path": args.model, "pretrained": args.pretrained, "precision": precision}


def _asked(args: argparse.Namespace) -> Precisions:
    """What --precision, --image and --text ask for; a plain name where that says it all."""
    named = {tower: getattr(args, tower, None) or args.precision for tower in TOWERS}
    return named["image"] if named["image"] == named["text"] else named


def _settled(args: argparse.Namespace, say: bool) -> Precisions:
    asked, fallback = _asked(args), getattr(args, "fallback", None)
    if auto_towers(asked):
        from ..loading.load import settled

        asked = settled(args.model, asked, args.device, say=say)
    return per_tower(asked, fallback) if fallback else asked


def baseline_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `clipq.load` for the fp32 model that --baseline names, or for MODEL's fp32 self.

    A quantized file has no such self: it is the model that the file says it was made from. Raises `ClipqError`.
    """
    if args.baseline:
        named: dict[str, Any] = {"name_or_path": args.baseline}
    else:
        named = float_origin(args.model) or {"name_or_path": args.model, "pretrained": args.pretrained}
    return {**_place(args), **named, "precision": "fp32"}


def _place(args: argparse.Namespace) -> dict[str, Any]:
    return {"device": args.device, "cache_dir": args.cache_dir}


def load_model(args: argparse.Namespace) -> Model:
    """The model that the arguments name, in the precision they ask for, with --threads applied."""
    from ..loading.load import load

    use_threads(args)
    precision = precision_of(args) if getattr(args, "fallback", None) else _asked(args)  # load settles "auto" itself
    return load(**_loading(args, precision))


def load_baseline(args: argparse.Namespace) -> Model:
    """The fp32 model to compare with."""
    from ..loading.load import load

    use_threads(args)
    found = baseline_of(args)
    if found["name_or_path"] not in (args.model, args.baseline):
        name = "/".join(filter(None, (found["name_or_path"], found["pretrained"])))
        show.note(f"clipq: the baseline is {name} in fp32, which {args.model} says it was made from")
    return load(**found)


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """--calibration and --calibration-texts."""
    help = "a folder of pictures like those to be embedded, for precisions that look at some (default: clipq's photos)"
    parser.add_argument("--calibration", metavar="FOLDER", type=Path, help=help)
    help = "a file with one text a line, for the text tower (default: everyday words)"
    parser.add_argument("--calibration-texts", metavar="FILE", type=Path, help=help)


def calibration_of(args: argparse.Namespace) -> dict[str, Path] | None:
    """What --calibration and --calibration-texts name, by tower."""
    named = {"image": args.calibration, "text": args.calibration_texts}
    return {tower: path for tower, path in named.items() if path is not None} or None


def names(text: str) -> tuple[str, ...]:
    """An argument like "fp16,int8"."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def add_plot(parser: argparse.ArgumentParser, what: str, default: str) -> None:
    """--plot [FILE]; `what` is shown."""
    help = f"{what}, as .svg, .png or .pdf (default: {default}; needs matplotlib)"
    parser.add_argument("--plot", metavar="FILE", nargs="?", type=Path, const=Path(default), help=help)


def check_model_path(path: Path) -> None:
    """Raise `ClipqError` unless a model can be written to `path`: FILE.safetensors, or a folder, new or empty."""
    if path.suffix == ".safetensors":
        check_output_path(path)
    elif path.suffix and not path.is_dir():
        raise OutputError(
            f"cannot write {path}: {path.suffix!r} is no ending of a model file. Give FILE.safetensors, or, for a "
            "folder as the hub expects it, a name without a dot."
        )
    else:
        check_output_folder(path)
        if path.is_dir() and any(path.iterdir()):
            raise OutputError(f"cannot write {path}: that folder is not empty. Give another one, or FILE.safetensors.")


def refuse_to_overwrite(path: Path, force: bool) -> None:
    """Raise `ClipqError` if `path` exists and --force was not given: before any work is done."""
    if path.exists() and not force:
        raise ClipqError(f"{path} exists already; choose another name, or overwrite it with --force.")


def positive(text: str) -> int:
    """An argument that has to be a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def positives(text: str) -> tuple[int, ...]:
    """An argument like "1,8,32"."""
    return tuple(positive(part.strip()) for part in text.split(","))
