"""ViT-B/32 with random weights in every precision: file, reload, and milliseconds beside fp32.

    python scripts/measuring/measure_costs.py --output eval/results/costs-vit-b-32.jsonl
    python scripts/measuring/measure_costs.py --only int8,int4 --runs 3

Random weights say nothing about accuracy, but sizes and times are those of the real model. What a precision looks at
are clipq's own photos and words. One JSON line for each; `make_tables.py` then writes docs/precisions.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from measure_vit_b_32 import ARCH, build, reload_is_equal

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.benchmark import benchmark
from clipq.errors import ClipqWarning
from clipq.models import Model
from clipq.resources import append_line


def measure(precision: str, base: Model, runs: int, folder: Path) -> dict[str, Any]:
    """One precision of open_clip's model beside `base`, the same model in fp32."""
    model, begun = build("open_clip"), time.monotonic()
    if precision != "fp32":
        model = clipq.quantize(model, precision)
    took = time.monotonic() - begun
    file = clipq.save(model, folder / f"{precision}.safetensors")
    found = {
        "what": f"{ARCH} with random weights from open_clip",
        "precision": precision,
        "quantize_seconds": took,
        "bytes": file.stat().st_size,
        "reload_bit_equal": reload_is_equal(model, file),
        **benchmark(model, base, (1, 32), runs),
    }
    file.unlink()
    return found


def main() -> None:
    """Measure each precision and append its line as soon as it is there."""
    args = parse_args()
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random
    warnings.simplefilter("ignore", ClipqWarning)  # some precisions are emulated here, and say so
    base = build("open_clip")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            found = measure(name, base, args.runs, Path(folder))
            times = " ".join(f"{row['tower']}/{row['batch_size']} {row['ms']['median']:.1f}" for row in found["rows"])
            print(
                f"{name:22s} {found['bytes'] / 1e6:6.1f} MB  reload {found['reload_bit_equal']}  ms {times}", flush=True
            )
            if args.output:
                append_line(args.output, json.dumps(found))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[*PRECISIONS])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, help="the .jsonl file to append to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
