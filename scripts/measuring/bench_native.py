"""Where the time of an image tower goes, beside what the processor and its memory can do at most. About two minutes.

    python scripts/measuring/bench_native.py --output eval/results/native-steps.jsonl

Builds csrc/bench/ with the library's own flags, and runs towers of random weights by the library's own calls, with a
clock around each kernel: for each model, number of threads and batch size one line of JSON. Towers, a loop of dot
products in registers and streams through memory take turns. `--linear` compares an int8 linear with torch's float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import hatch_build  # noqa: E402
from clipq.machine import cores, cpu_name  # noqa: E402
from clipq.native import library  # noqa: E402
from clipq.version import VERSION  # noqa: E402

BENCH = hatch_build.SOURCES / "bench"
TRAITS = {
    "portable": "Portable",
    "avx2": "Avx2",
    "avx_vnni": "AvxVnni",
    "avx512_vnni": "Avx512Vnni",
    "neon_dotprod": "NeonDotprod",
}
"""The name of each instruction set's traits in its file."""

MODELS = {
    "ViT-B-32": (768, 3072, 12, 12, 32, 224, 1),
    "ViT-B-16": (768, 3072, 12, 12, 16, 224, 1),
    "ViT-L-14-336": (1024, 4096, 16, 24, 14, 336, 1),
    "ViT-SO400M-14-SigLIP-384": (1152, 4304, 16, 27, 14, 384, 0),
}
"""Width, hidden width, heads, blocks, side of a patch and of a picture, and whether one token is read of the result."""

SHAPES = ((768, 3072), (3072, 768), (768, 2304), (768, 768))  # (in, out) of ViT-B/32's linears


def build(program: Path) -> None:
    """Compile csrc/bench/ and all that it measures to `program`. Raises `hatch_build.NotBuiltError` or subprocess's."""
    compiler = hatch_build.find_compiler()
    sets = {"portable": (), **hatch_build.instruction_sets(compiler)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects, have = hatch_build.compile_parts(compiler, folder)
        built = [one for one in sets if one == "portable" or hatch_build.macro(one) in have]

        def compiled(source: Path, out: str, *flags: str) -> Path:
            command = [*compiler, *hatch_build.FLAGS, *have, *flags, "-c", source, "-o", folder / out]
            subprocess.run(list(map(str, command)), check=True)
            return folder / out

        peaks = [(BENCH / "peak.cpp", f"peak_{one}.o", *sets[one], *_peak_macros(one)) for one in built]
        rest = [(BENCH / "bench.cpp", "bench.o"), (BENCH / "clocks.cpp", "clocks.o")]
        api = (hatch_build.SOURCES / "api.cpp", "api.o", "-Dusable_kernel=untimed_kernel")
        with ThreadPoolExecutor(cores()) as pool:
            more = list(pool.map(lambda job: compiled(*job), [*peaks, *rest, api]))
        link = [*compiler, *objects, *more, *hatch_build.link_flags(compiler), "-o", program]
        subprocess.run(list(map(str, link)), check=True)


def _peak_macros(name: str) -> tuple[str, ...]:
    source = f'-DCLIPQ_SOURCE="{hatch_build.SOURCES / name}.cpp"'
    return (source, f"-DCLIPQ_TRAITS={TRAITS[name]}", f"-Dkernel_{name}=unused_{name}", f"-DCLIPQ_PEAK=peak_{name}")


def measured_steps(program: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One result for each model, number of threads and batch size."""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for model in options.models:
        for path in options.path or [library.best_path()]:
            for threads in options.threads:
                for batch in options.batches:
                    numbers = (library.PATHS.index(path), options.seconds, *MODELS[model], threads, batch)
                    done = subprocess.run([program, *map(str, numbers)], check=True, capture_output=True, text=True)
                    yield {
                        "date": date,
                        "version": VERSION,
                        "processor": cpu_name(),
                        "path": path,
                        "model": model,
                        "width": MODELS[model][0],
                        **json.loads(done.stdout),
                    }


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
    """A line: the fastest run of each in GFLOP/s (quantization included), medians with quartiles, their ratios."""
    import torch

    from clipq.kernels import native

    x, bias = torch.randn(rows, inputs), torch.randn(outputs)
    qweight, scale = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8), torch.rand(outputs) / 100
    linear = native.PackedLinear(qweight, scale, bias, symmetric=False, path=path)
    weight = qweight.float() * scale[:, None]
    ours, theirs = measured(
        [lambda: linear(x), lambda: torch.nn.functional.linear(x, weight, bias)],
        seconds,
    )
    work = 2e-9 * rows * inputs * outputs
    return (
        f"{torch.get_num_threads():>3} {path:>12} {rows:>5} {inputs:>5} {outputs:>5}"
        f" {work / min(ours):8.1f} {work / min(theirs):8.1f}  {spread(ours):>26}  {spread(theirs):>26}"
        f" {min(theirs) / min(ours):6.2f} {statistics.median(theirs) / statistics.median(ours):6.2f} {len(ours):>5}"
    )


def print_linears(options: argparse.Namespace) -> None:
    """`compare` for every shape, number of threads and rows."""
    import torch

    print(f"{cpu_name()}, {cores()} cores, torch {torch.__version__}; paths: {', '.join(library.supported_paths())}")
    print(
        "thr         path  rows    in   out     int8     fp32  int8 ms (quartiles)  fp32 ms (quartiles)  ratios  runs"
    )
    with torch.inference_mode():
        for threads in options.threads:
            torch.set_num_threads(threads)
            for inputs, outputs in SHAPES:
                for rows in options.rows:
                    for path in options.path or [library.best_path()]:
                        print(compare(rows, inputs, outputs, path, options.seconds), flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["ViT-B-32", "ViT-B-16"])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, cores()}))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--path", nargs="+", default=None, help="default: the best one of this processor")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--output", type=Path, help="a file of JSON lines, to which the results are added")
    parser.add_argument("--linear", action="store_true", help="compare with torch's float32 linear instead")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 50, 400, 1600], help="for --linear")
    return parser


def main() -> None:
    """Build, measure, print, and add to the output."""
    options = arguments().parse_args()
    if options.linear:
        print_linears(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "bench"
        build(program)
        for result in measured_steps(program, options):
            line = json.dumps(result)
            print(line, flush=True)
            if options.output:
                with options.output.open("a", encoding="utf-8") as out:
                    out.write(f"{line}\n")


if __name__ == "__main__":
    main()
