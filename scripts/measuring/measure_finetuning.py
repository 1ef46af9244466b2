"""What `clipq.finetune` brings: the drift from fp32, and how often zero-shot answers stay the same, step by step.

Every other picture of a folder is trained on, with random views; the rest is evaluated on. One JSON line a look:

    python scripts/measuring/measure_finetuning.py MODEL --data PHOTOS                       # int8, light
    python scripts/measuring/measure_finetuning.py MODEL --data PHOTOS --precision w4a8 --mode full --steps 400

On a model of ImageNet's classes the answers are those to open_clip's names of them, in one template.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import clipq
from clipq.inputs.folders import pictures
from clipq.training.options import Drift, Options

_BATCH = 32


def main() -> None:
    """Train, and print a line for the plain quantized model, for each look, and for what came of it."""
    args = parse_args()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    entries = [entry.path for entry in pictures(args.data).entries]
    model = clipq.load(args.model, precision="fp32")
    pixels = torch.stack([model.preprocess(_opened(path)) for path in entries[1::2]])
    wanted, classes, begun = embed(model, pixels), class_directions(model), time.monotonic()

    def tell(seen: Drift) -> None:
        print(json.dumps({"step": seen.step, "loss": seen.loss, "held_out": seen.drift["image"]}), flush=True)

    def show(what: str, found: torch.Tensor) -> None:
        cosine = 1 - F.cosine_similarity(found.double(), wanted.double()).mean()
        same = ((found @ classes.T).argmax(1) == (wanted @ classes.T).argmax(1)).float().mean()
        line = {"model": what, "drift": float(cosine), "agreement": float(same), "n": len(wanted)}
        print(json.dumps({**line, "seconds": round(time.monotonic() - begun)}), flush=True)

    precision = {"image": args.precision}
    plain = clipq.quantize(clipq.load(args.model, precision="fp32"), precision, calibration=_given(args, entries))
    show(f"quantized to {args.precision}", embed(plain, pixels))
    options = Options(batch_size=args.batch_size, autocast=args.autocast, every=args.every, progress=False, tell=tell)
    settings = {"steps": args.steps, "mode": args.mode, "lr": args.lr, "resume": args.resume}
    trained = clipq.finetune(model, precision, {"image": entries[0::2]}, options=options, **settings)
    show(f"finetuned in {args.precision}, {args.mode}", embed(trained, pixels))
    if args.output:
        clipq.save(trained, args.output)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--mode", default="light")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--autocast", default="bf16")
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--resume", type=Path, help="a folder for checkpoints")
    parser.add_argument("--output", type=Path, help="where the model is saved")
    return parser.parse_args()


def _given(args: argparse.Namespace, entries: list[Path]) -> dict[str, list[Path]] | None:
    """The same pictures to calibrate on, where the precision looks at any."""
    from clipq.arithmetic.precisions import resolve
    from clipq.methods.steps import is_calibrated

    return {"image": entries[0::2]} if is_calibrated(resolve(args.precision)) else None


def _opened(path: Path):
    from clipq.inputs.images import decode_upright

    return decode_upright(path)


def embed(model: clipq.Model, pixels: torch.Tensor) -> torch.Tensor:
    """float32 [n, width]"""
    return torch.cat([model.encode_image(batch) for batch in pixels.split(_BATCH)])


def class_directions(model: clipq.Model) -> torch.Tensor:
    """float32 [1000, width], of length 1: "a photo of a {class}." for each class of ImageNet."""
    from open_clip import IMAGENET_CLASSNAMES

    return model.encode_text([f"a photo of a {name}." for name in IMAGENET_CLASSNAMES], normalize=True)


if __name__ == "__main__":
    main()
