"""Speed of clipq's native int8 linear against torch's float32 linear, for the shapes of ViT-B/32.

    python scripts/measuring/bench_native.py [--threads 1 2] [--rows 1 50 400 1600] [--path avx2] [--seconds 1.0]

Both run in turns within one measurement, so that whatever else the machine does meets both. Each line: the fastest run
in GFLOP/s (2 m n k operations, quantization included), the median with its quartiles in milliseconds, and the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from clipq.kernels import native
from clipq.machine import cores, cpu_name
from clipq.native import library

SHAPES = ((768, 3072), (3072, 768), (768, 2304), (768, 768))  # (in, out)


def measured(calls: list[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Seconds of every run of each call, the calls taking turns."""
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for call, found in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return times


def spread(times: list[float]) -> str:
    low, middle, high = statistics.quantiles(times, n=4)
    return f"{middle * 1e3:8.3f} ({low * 1e3:.3f}, {high * 1e3:.3f})"


def compare(rows: int, inputs: int, outputs: int, path: str, seconds: float) -> str:
    x, bias = torch.randn(rows, inputs), torch.randn(outputs)
    qweight, scale = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8), torch.rand(outputs) / 100
    linear = native.PackedLinear(qweight, scale, bias, symmetric=False, path=path)
    weight = qweight.float() * scale[:, None]
    ours, theirs = measured([lambda: linear(x), lambda: F.linear(x, weight, bias)], seconds)
    work = 2e-9 * rows * inputs * outputs
    return (
        f"{torch.get_num_threads():>3} {path:>12} {rows:>5} {inputs:>5} {outputs:>5}"
        f" {work / min(ours):8.1f} {work / min(theirs):8.1f}  {spread(ours):>26}  {spread(theirs):>26}"
        f" {min(theirs) / min(ours):6.2f} {statistics.median(theirs) / statistics.median(ours):6.2f} {len(ours):>5}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, cores()])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 50, 400, 1600])
    parser.add_argument("--path", nargs="+", default=None, help="default: the best one of this processor")
    parser.add_argument("--seconds", type=float, default=1.0, help="per line")
    options = parser.parse_args()
    paths = options.path or [library.best_path()]
    print(f"{cpu_name()}, {cores()} cores, torch {torch.__version__}; paths: {', '.join(library.supported_paths())}")
    print(
        "thr         path  rows    in   out     int8     fp32  int8 ms (quartiles)  fp32 ms (quartiles)  ratios  runs"
    )
    with torch.inference_mode():
        for threads in options.threads:
            torch.set_num_threads(threads)
            for inputs, outputs in SHAPES:
                for rows in options.rows:
                    for path in paths:
                        print(compare(rows, inputs, outputs, path, options.seconds), flush=True)


if __name__ == "__main__":
    main()
