"""From nothing to the first embedding: seconds and memory of `clipq.runtime`, in fresh processes, beside other ways.

    python scripts/measuring/measure_start.py --output eval/results/start-vit-b-32.jsonl
    python scripts/measuring/measure_start.py --runs 3 --only runtime,open_clip

The model is open_clip's ViT-B-32 with random weights: clipq's int8 file of it for the runtime and for the whole
package, its fp32 weights for open_clip, its int8 ONNX graph for ONNX Runtime (with the tokenizer that Hugging Face's
`tokenizers` makes, as fastembed does it). Each run is a process of its own, in turns; files are in the system's cache.
Then the runtime's calls are timed beside `clipq.Model`'s, in one process. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure_vit_b_32 import ARCH, build

import clipq
from clipq.benchmark import captions
from clipq.description import described_environment
from clipq.errors import ClipqError
from clipq.resources import append_line
from clipq.timing import alternate
from clipq.work.processes import Processes

_TIMED = """
import json, time
begun = time.perf_counter()
{load}
loaded = time.perf_counter()
{first}
done = time.perf_counter()
status = dict(line.split(":", 1) for line in open("/proc/self/status") if line.startswith(("VmHWM", "VmRSS")))
memory = {{name: 1024 * int(value.split()[0]) for name, value in status.items()}}
times = {{"load": loaded - begun, "first": done - loaded, "seconds": done - begun}}
print(json.dumps({{**times, "peak": memory["VmHWM"], "after": memory["VmRSS"]}}))
"""
_TEXT = "embedding = model.encode_text(['a photo of a cat'])"
WAYS = {
    "import clipq.runtime": ("import clipq.runtime", ""),
    "clipq.runtime": ("import clipq.runtime\nmodel = clipq.runtime.load({int8!r})", _TEXT),
    "clipq.runtime image": (
        "import clipq.runtime\nmodel = clipq.runtime.load({int8!r}, towers='image')",
        "import numpy\nembedding = model.encode_image(numpy.zeros((224, 224, 3), 'uint8'))",
    ),
    "clipq": ("import clipq\nmodel = clipq.load({int8!r})", _TEXT),
    "open_clip fp32": (
        "import torch, open_clip\n"
        "model = open_clip.create_model('{arch}', pretrained={fp32!r}).eval()\n"
        "tokenizer = open_clip.get_tokenizer('{arch}')",
        "with torch.inference_mode():\n    embedding = model.encode_text(tokenizer(['a photo of a cat']))",
    ),
    "ONNX Runtime int8": (
        "import numpy, onnxruntime, tokenizers\n"
        "images = onnxruntime.InferenceSession({onnx!r} + '/image.onnx', providers=['CPUExecutionProvider'])\n"
        "texts = onnxruntime.InferenceSession({onnx!r} + '/text.onnx', providers=['CPUExecutionProvider'])\n"
        "tokenizer = tokenizers.Tokenizer.from_file({onnx!r} + '/tokenizer.json')",
        "ids = tokenizer.encode('a photo of a cat').ids[:77]\n"
        "ids = numpy.array([ids + [0] * (77 - len(ids))])\n"
        "embedding = texts.run(None, {{texts.get_inputs()[0].name: ids}})",
    ),
}
"""What is run before the first embedding, and for it."""


def prepared(folder: Path) -> dict[str, str]:
    """The files that the ways read."""
    base = build("open_clip")
    torch.save(base.module.state_dict(), folder / "fp32.pt")
    module = clipq.quantize(build("open_clip")).module
    model = clipq.Model(module, tokenizer=ARCH)  # with open_clip's own preprocessing
    files = {"arch": ARCH, "fp32": str(folder / "fp32.pt"), "onnx": str(folder / "onnx")}
    files["int8"] = str(clipq.save(model, folder / "int8.safetensors"))
    try:
        clipq.export(model, folder / "onnx", "onnx", timed=False)
    except ClipqError as error:
        print(f"ONNX Runtime is left out: {error}")
    return files


def run(way: str, files: dict[str, str]) -> dict[str, float] | None:
    """One fresh process; None if it fails, as where a package is missing."""
    load, first = (part.format(**files) for part in WAYS[way])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _TIMED.format(load=load, first=first)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{way} is left out: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout)


def start(ways: list[str], files: dict[str, str], runs: int) -> list[dict]:
    """Medians and ranges of each way, whose processes take turns."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(runs + 1):
        for way in [way for way in found if found[way] is not None]:
            one = run(way, files)
            if one is None:
                del found[way]
            else:
                found[way].append(one)
    return [
        {"way": way, **{key: _summary([one[key] for one in rows[1:]]) for key in rows[0]}}
        for way, rows in found.items()
    ]


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def calls(file: str, runs: int) -> list[dict]:
    """Milliseconds of the runtime beside `clipq.Model`, on the same inputs, and the least cosine between them."""
    import clipq.runtime

    model, runtime = clipq.load(file), clipq.runtime.load(file, threads=torch.get_num_threads())
    rows = []
    for batch in (1, 8, 32):
        inputs = {"image": torch.randn(batch, 3, 224, 224), "text": model.tokenizer(captions(batch))}
        for tower, x in inputs.items():
            ways = [
                partial(getattr(runtime, f"encode_{tower}"), x.numpy()),
                partial(getattr(model, f"encode_{tower}"), x),
            ]
            a, b = (np.asarray(way(), np.float64) for way in ways)
            cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            own, other = (_summary(one) for one in alternate(ways, runs, torch.device("cpu")))
            row = {"tower": tower, "batch_size": batch, "ms": own, "model_ms": other}
            rows.append({**row, "cosine": float(cosine.min())})
    return rows


def main() -> None:
    """Measure, print and append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(WAYS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random
    with tempfile.TemporaryDirectory() as folder:
        files = prepared(Path(folder))
        ways, rows = start(args.only, files, args.runs), calls(files["int8"], args.runs)
    for way in ways:
        times = " ".join(f"{key} {way[key]['median']:.3f}" for key in ("load", "first", "seconds"))
        print(f"{way['way']:28s} {times} s  peak {way['peak']['median'] / 1e6:.0f} MB")
    for row in rows:
        print(f"{row['tower']}/{row['batch_size']}: runtime {row['ms']['median']:.2f} ms, clipq.Model "
              f"{row['model_ms']['median']:.2f} ms, least cosine {row['cosine']:.8f}")  # fmt: skip
    if args.output:
        line = {"what": f"{ARCH} with random weights", "runs": args.runs, "ways": ways, "calls": rows}
        append_line(args.output, json.dumps({**line, "environment": described_environment(Processes())}))


if __name__ == "__main__":
    main()
