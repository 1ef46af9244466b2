"""From files to normalized vectors, clipq against what else one could use, on this machine, in one run.

    python scripts/measuring/bench_files.py --output eval/results/files-vit-b-32.jsonl
    python scripts/measuring/bench_files.py --sets 500x375 --only "clipq exact" "open_clip fp32" --runs 3
    python scripts/measuring/bench_files.py --earlier ../clipq-0.2      # a checkout of 0.2, with its kernels built

A ViT-B/32 of random weights, the same for all but sentence-transformers (transformers' own model). The sets are real
photos resized to 500x375 and 4000x3000 pixels with fresh noise, JPEG quality 90, and captions, one a line. Every
contestant has a process and all cores; they take turns, one pass over the set each, and medians are compared. open_clip
has its own transform and torch's DataLoader, with whichever of 0, 1 and 2 workers was fastest in the first round.
What is not installed is left out with a sentence. One JSON line is appended to --output.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from file_race import sets
from file_race.runner import ARCH, CONTESTANTS

from clipq.resources import append_line

ROOT = Path(__file__).resolve().parents[2]
WORKERS = "open_clip fp32"  # the one of these contestants that is fastest stands for all of them
COUNTS = {"500x375": 320, "12-megapixel": 48, "captions": 2048}


class Contestant:
    """A contestant's process. `left_out`: why it takes no part, or ""."""

    def __init__(self, name: str, folder: Path, path: Path):
        command = [sys.executable, str(Path(__file__).parent / "file_race" / "runner.py"), name, str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(path)}
        pipe = subprocess.PIPE
        self.name = name
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.left_out = self._answer().get("left out", "")

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"left out": f"it ended with {self.process.wait()}"}

    def run(self, source: Path) -> dict[str, Any]:
        """One pass over the files: seconds, rows, and the first numbers of the first row."""
        print(source, file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def prepare(folder: Path, names: Sequence[str]) -> None:
    """The model's files that the contestants of these names read."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.create_model(ARCH, load_weights=False).eval()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "weights.safetensors")
    if any("ONNX" in name for name in names):
        _export(model.visual, folder / "image.onnx")
    if any("sentence" in name for name in names):
        _save_transformers(folder / "hf")


def _export(visual: Any, path: Path) -> None:
    import torch

    batch = torch.export.Dim("batch", min=1, max=4096)
    options = {"dynamo": True, "external_data": False, "verbose": False}
    names = {"input_names": ["input"], "output_names": ["output"]}
    torch.onnx.export(visual, (torch.zeros(2, 3, 224, 224),), path, dynamic_shapes=({0: batch},), **names, **options)


def _save_transformers(folder: Path) -> None:
    import open_clip
    import transformers

    config = transformers.CLIPConfig(projection_dim=512)  # its defaults are ViT-B/32
    config.text_config.eos_token_id = 49407
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPImageProcessor().save_pretrained(folder)
    source = open_clip.tokenizer.SimpleTokenizer()
    merges = list(source.bpe_ranks)
    tokenizer = transformers.CLIPTokenizer(vocab=source.encoder, merges=merges)
    tokenizer.save_pretrained(folder)


def race(contestants: Sequence[Contestant], name: str, source: Path, runs: int) -> dict[str, Any]:
    """Rows a second of each, by turns, after a first round that counts for nothing but choosing the workers."""
    first = {one: one.run(source) for one in contestants}
    left_out = {one.name: found["left out"] for one, found in first.items() if "left out" in found}
    fit = [one for one in contestants if one.name not in left_out]
    loaders = sorted((one for one in fit if one.name.startswith(WORKERS)), key=lambda one: first[one]["seconds"])
    fit = [one for one in fit if one not in loaders[1:]]
    seconds: dict[str, list[float]] = {one.name: [] for one in fit}
    for _ in range(runs):
        for one in fit:
            seconds[one.name].append(one.run(source)["seconds"])
    rows = first[fit[0]]["rows"]
    found = {
        "set": name,
        "rows": rows,
        "per_second": {key: rows / statistics.median(value) for key, value in seconds.items()},
        "seconds": seconds,
        "left_out": left_out,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }
    say(found)
    return found


def say(found: dict[str, Any]) -> None:
    print(f"{found['set']}: {found['rows']} rows")
    for name, rate in found["per_second"].items():
        times = [found["rows"] / one for one in found["seconds"][name]]
        ratio = found["per_second"].get("clipq exact", rate) / rate
        print(f"  {name:28} {rate:8.1f} a second ({min(times):.1f}-{max(times):.1f}); clipq exact {ratio:.2f} x")
    for name, reason in found["left_out"].items():
        print(f"  {name} left out: {reason}", flush=True)


def sources(folder: Path, wanted: Sequence[str], photos: Path | None, counts: dict[str, int]) -> dict[str, Path]:
    """The sets, made where they are not there yet."""
    found, real = {}, sets.photos(photos)
    for name in wanted:
        if name == "captions":
            found[name] = sets.captions(folder / "captions.txt", counts[name])
        else:
            found[name] = sets.make(folder / f"{name}-{counts[name]}", sets.SIZES[name], counts[name], real)
    return found


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photos", type=Path, help="a folder of photos to make the sets of (default: clipq's own 42)")
    add("--work", type=Path, help="where the sets are kept between runs (default: nowhere)")
    add("--sets", nargs="+", choices=COUNTS, default=list(COUNTS))
    add("--counts", type=lambda text: tuple(map(int, text.split(","))), help="files in each of --sets, as N,N")
    add("--only", nargs="+", metavar="NAME", default=[""], help="contestants whose names begin so")
    add("--earlier", type=Path, help="a checkout of clipq 0.2 (default: it is left out)")
    add("--runs", type=int, default=5, help="passes over each set (default: %(default)s)")
    add("--output", type=Path, help="the .jsonl file to append to (default: none)")
    return parser


def main() -> None:
    """Measure, print, append."""
    from clipq.description import described_environment
    from clipq.work.processes import Processes

    args = parser().parse_args()
    counts = {**COUNTS, **dict(zip(args.sets, args.counts or (), strict=False))}
    names = [name for name in CONTESTANTS if name.startswith(tuple(args.only))]
    names = [name for name in names if args.earlier or name != "clipq 0.2"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="files-")))
        prepare(folder, names)
        given = sources((args.work or folder).resolve(), args.sets, args.photos, counts)
        paths = {"clipq 0.2": args.earlier and args.earlier.resolve()}
        all_of_them = [Contestant(name, folder, paths.get(name) or ROOT) for name in names]
        for one in all_of_them:
            stack.callback(one.close)
        fit = [one for one in all_of_them if not one.left_out]
        for one in all_of_them:
            if one.left_out:
                print(f"{one.name} left out: {one.left_out}", flush=True)
        rows = [race(fit, name, source, args.runs) for name, source in given.items()]
    result = {
        "what": f"{ARCH} from files to vectors",
        "weights": "random",
        "rows": rows,
        "left_out": {one.name: one.left_out for one in all_of_them if one.left_out},
        "runs": args.runs,
        "environment": described_environment(Processes()),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if args.output:
        append_line(args.output, json.dumps(result))


if __name__ == "__main__":
    main()
