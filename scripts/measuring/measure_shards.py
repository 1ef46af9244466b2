"""Is memory flat at any number of pictures, and does a killed run end with the same bytes?

    nice python scripts/measuring/measure_shards.py --count 100000 --out eval/results/shards.jsonl

Little JPEGs are made, and embedded by `clipq embed --shard-size` with a tiny model: once as it is, its resident memory
looked at all the while, and once killed at random a few times and begun again. Every file of the two is compared. One
JSON line; it exits with 1 if a byte differs or memory grew by more than --most after the first tenth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipq.resources import append_line

CONFIG = {
    "model_cfg": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "head_width": 16, "layers": 2},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}
_MB = 1e6


def make_model(folder: Path) -> str:
    """An open_clip folder with random weights; the name that loads it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(0)
    tensors = open_clip.CLIP(**CONFIG["model_cfg"]).state_dict()
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    return f"local-dir:{folder}"


def make_pictures(folder: Path, count: int) -> None:
    """`count` JPEGs of 32 x 32 coloured blocks, a thousand to a folder; one in a thousand is broken."""
    numbers = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"{i // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        blocks = Image.fromarray(numbers.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        blocks.resize((32, 32)).save(place / f"{i:07d}.jpg")
        if i % 1000 == 123:
            (place / f"{i:07d}.jpg").write_bytes(b"broken")


def resident(process: subprocess.Popen) -> int:
    """Bytes in memory; 0 where the system does not say, or the process has ended."""
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * 4096


def done(unfinished: Path, shard_size: int) -> int:
    """About how many inputs have been embedded."""
    return shard_size * len([*unfinished.glob("*/shards/*.json")])


def watched(command: Sequence[str], output: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run the command to its end: its memory by the number of inputs done, and its seconds."""
    begun, samples = time.perf_counter(), []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            samples.append((done(output.with_name(f"{output.name}.unfinished"), args.shard_size), resident(process)))
            time.sleep(0.2)
    early = max((size for count, size in samples if count <= args.count // 10), default=0)
    late = max((size for count, size in samples if count > args.count // 10), default=0)
    seconds = time.perf_counter() - begun
    return {"code": process.returncode, "seconds": seconds, "early": early / _MB, "late": late / _MB}


def killed(command: Sequence[str], seconds: float, kills: int) -> list[float]:
    """Run the command, kill it at random `kills` times, then let it end; when it was killed."""
    choose, times = random.Random(0), []
    while True:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(choose.uniform(0.2, 0.6) * seconds / 1.5 if len(times) < kills else None)
                return times
            except subprocess.TimeoutExpired as error:
                times.append(round(error.timeout, 1))
                process.kill()


def digest(folder: Path) -> str:
    """sha256 over the names and bytes of all files of a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    model = args.model or make_model(folder / "model")
    make_pictures(folder / "pictures", args.count)
    print(f"{args.count} pictures", flush=True)
    command = [sys.executable, "-m", "clipq", "embed", model, str(folder / "pictures"), "--format", args.format]
    command += ["--shard-size", str(args.shard_size), "--dtype", args.dtype, "-o"]
    whole, resumed = folder / "whole", folder / "resumed"
    found = watched([*command, str(whole)], whole, args)
    print(f"whole: {found}", flush=True)
    times = killed([*command, str(resumed)], found["seconds"], args.kills)
    print(f"killed after {times} s", flush=True)
    return {
        "what": f"{args.count} pictures in shards of {args.shard_size}",
        "format": args.format,
        "dtype": args.dtype,
        **found,
        "growth": found["late"] - found["early"],
        "killed_after": times,
        "same_bytes": digest(whole) == digest(resumed),
    }


def main() -> None:
    """Measure, print, append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", help="what clipq.load takes (default: a tiny one with random weights)")
    add("--count", type=int, default=100_000)
    add("--shard-size", type=int, default=5000)
    add("--format", default="safetensors", choices=("safetensors", "parquet"))
    add("--dtype", default="float32")
    add("--kills", type=int, default=3)
    add("--most", type=float, default=50.0, help="MB that memory may grow after the first tenth")
    add("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shards-") as folder:
        found = measure(Path(folder), args)
    print(json.dumps(found, indent=1))
    if args.out:
        append_line(args.out, json.dumps(found))
    if found["code"] or not found["same_bytes"] or found["growth"] > args.most:
        sys.exit("not as it should be")


if __name__ == "__main__":
    main()
