"""Every precision of a model on one task, against its fp32 self: a line of results for each.

    python scripts/measuring/measure_precisions.py MODEL --task imagenet1k-7 --data FOLDER --output NAME.jsonl
    python scripts/measuring/measure_precisions.py clipq-tiny --task drawings --only int8,int8-best

Precisions that look at inputs look at clipq's own photos and everyday words, which are no evaluation data. What takes
too long or is of no interest can be left out with --only; `make_tables.py` then writes docs/precisions.md.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.errors import ClipqWarning


def main() -> None:
    """Evaluate fp32 once, then every precision against it, and append each result as soon as it is there."""
    args = parse_args()
    warnings.simplefilter("ignore", ClipqWarning)  # some precisions are emulated here, and say so
    baseline = clipq.evaluate(clipq.load(args.model, "fp32"), args.task, data=args.data)
    for name in args.only:
        begun = time.monotonic()
        model = clipq.quantize(clipq.load(args.model, "fp32"), name)
        took = time.monotonic() - begun
        result = clipq.evaluate(model, args.task, data=args.data, baseline=baseline)
        found = result.comparison
        print(
            f"{name:18s} {result.model['weight_bytes'] / 1e6:6.2f} MB  agreement {found['agreement']:.4f}  drop "
            f"{found['drop_points']:5.2f}  cosine {found['image_cosine']['mean']:.5f}  quantized in {took:.0f} s",
            flush=True,
        )
        if args.output:
            result.append(args.output, answers=False)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[n for n in PRECISIONS if n != "fp32"])
    parser.add_argument("--output", type=Path, help="the .jsonl file to append to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
