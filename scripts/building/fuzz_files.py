"""Structured fuzzing of clipq's files: sealed ones, changed anywhere and sealed again, so that every hash is right.

    python scripts/building/fuzz_files.py --count 20000 --jobs 2
    python scripts/building/fuzz_files.py --count 500 --seed 7 my.safetensors --keep found
    python scripts/building/fuzz_files.py --runtime  # clipq.runtime.load in place of clipq.load

Well is a model that says of itself what its file says, or a `ClipqError`. Found is anything else: another exception, a
load that takes more than the limits of time or memory, a question to the network, a file written or a program started
elsewhere. The same seed makes the same files. Memory is measured on Linux.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
from file_mutations import load_seed, mutated

from clipq.errors import ClipqError
from clipq.files.checkpoints import read
from clipq.files.header import read_header
from clipq.files.spaces import tower_space
from clipq.methods.recipes import Recipe

SEEDS = Path(__file__).resolve().parents[2] / "tests" / "data" / "v0.2"
STATUS = Path("/proc/self/status")
HANGS = 20  # seconds until a load is broken off
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree")
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn")
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname")


class Found(BaseException):
    """What must not be; no `except Exception` of a library swallows it."""


class Watch:
    """An audit hook that knows when a load is running, and where it may write."""

    def __init__(self, allowed: Path):
        self.allowed, self.running = str(allowed), False
        self.seen: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple) -> None:
        if not self.running:
            return
        written = event in WRITES or (event == "open" and self.writes(arguments))
        elsewhere = written and not self.is_allowed(arguments)
        if elsewhere or event in PROGRAMS or event in NETWORK:
            self.seen.append(f"{event} {arguments!r}"[:300])
            raise Found(self.seen[-1])

    def is_allowed(self, arguments: tuple) -> bool:
        place = Path(os.fsdecode(arguments[0]))
        if isinstance(arguments[-1], int) and arguments[-1] > 2 and not place.is_absolute():
            place = Path(f"/proc/self/fd/{arguments[-1]}").resolve() / place  # os.remove(name, dir_fd=...)
        return str(place.absolute()).startswith((self.allowed, "/dev/")) or "__pycache__" in place.parts

    @staticmethod
    def writes(arguments: tuple) -> bool:
        path, mode, flags = arguments
        wanted = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return isinstance(path, str | bytes) and bool(wanted or (mode and set(mode) & set("wax+")))


def memory(line: str) -> float:
    """MB of this process: "VmHWM", its peak since `forget_peak`, or "VmRSS", now."""
    if not STATUS.exists():
        return 0.0
    return next(int(row.split()[1]) for row in STATUS.read_text().splitlines() if row.startswith(line)) / 1024


def forget_peak() -> None:
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")


def consistent(path: Path, use: bool, runtime: bool = False) -> str:
    """Load the file; raises `Found` where the model is not what its file says."""
    if runtime:
        return without_torch(path, use)
    model, header = read(path), read_header(path)
    stated = header.config
    if model.config != stated["config"] or model.preprocessing != stated["preprocessing"]:
        raise Found("the model's configuration is not the file's")
    if model.recipe != Recipe.from_dict(stated["recipe"]) or set(model.recipe.schemes) != set(model.towers):
        raise Found("the model's recipe is not the file's")
    for tower in model.towers:
        tower_space(header, tower).space()
    if use:
        return f"read; {used(model)}"
    return "read"


def without_torch(path: Path, use: bool) -> str:
    """As `consistent`, by the runtime; embeddings that are no numbers are found, too."""
    from clipq.runtime import load

    model = load(path, threads=1)
    if set(model.towers) != set(model.config["towers"]):
        raise Found("the model's towers are not the file's")
    try:
        for name in model.towers:
            model.space(name)
        for name, tower in model._towers.items() if use else ():
            given = np.zeros((1, *tower.shape), np.float32) if name == "image" else np.ones((1, tower.context), int)
            encoded = getattr(model, f"encode_{name}")(given)
            if encoded.shape != (1, tower.outputs):
                raise Found(f"embeddings of shape {encoded.shape}")
        if use and "text" in model.towers and model.config.get("tokenizer"):
            model.encode_text("a cat")
        if use and model.config["preprocessing"]:
            model.encode_image(np.zeros((9, 8, 3), np.uint8))
    except ClipqError:
        return "read; refused in use"
    return "read; used" if use else "read"


def runtime_seeds(folder: Path) -> list[Path]:
    """Files that the runtime reads: of two tiny models, saved into `folder`."""
    import transformers

    import clipq

    side = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    image, text = {**side, "image_size": 16, "patch_size": 8}, {**side, "vocab_size": 90, "max_position_embeddings": 9}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "projection_size": 32}
    files = []
    for family in ("CLIP", "Siglip"):
        settings = getattr(transformers, f"{family}Config")(vision_config=image, text_config=text)
        model = clipq.Model(getattr(transformers, f"{family}Model")(settings).eval())
        files.append(clipq.save(clipq.quantize(model), folder / f"{family}.safetensors"))
    return files


def used(model) -> str:
    """What comes of it when the model is used: embeddings, or a `ClipqError`."""
    try:
        shape = model.host.pixel_shape(model.module)
        if "image" in model.towers and shape is not None:
            model.encode_image(torch.zeros(1, *shape))
        if "text" in model.towers and (length := model.host.context_length(model.module)):
            model.encode_text(torch.ones(1, length, dtype=torch.long))
        if model.preprocessing:
            model.preprocess  # noqa: B018
        if model.tokenizer_spec is not None:
            model.tokenizer("a cat")
    except ClipqError:
        return "refused in use"
    return "used"


def outcome(path: Path, use: bool, watch: Watch, options: argparse.Namespace) -> str:
    """One word for a load that is well; raises `Found`."""
    forget_peak()
    before, begun = memory("VmRSS"), time.process_time()
    watch.running = True
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = consistent(path, use, options.runtime)
    except ClipqError as error:
        result = type(error).__name__
    finally:
        watch.running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        seen, watch.seen = watch.seen, []
    took, grown = time.process_time() - begun, memory("VmHWM") - before
    if seen:
        raise Found(f"swallowed by a library: {seen[0]}")
    if took > options.seconds:
        raise Found(f"{result} after {took:.2f} s of processor time")
    if grown > options.megabytes + path.stat().st_size / 2**20:
        raise Found(f"{result} with {grown:.0f} MB")
    return result


def work(job: int, options: argparse.Namespace) -> collections.Counter:
    """The files `job`, `job + jobs`, ...; counts by outcome. What was found is printed, and kept if asked."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _hangs)
    counts: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        tempfile.tempdir = folder
        watch = Watch(Path(folder))
        files = runtime_seeds(Path(folder)) if options.runtime and not options.files else options.files
        seeds = [load_seed(path) for path in files]
        for path in files:
            consistent(
                path, True, options.runtime
            )  # what is imported at the first use costs time and memory of its own
        path, begun = Path(folder, "x.safetensors"), time.monotonic()
        for number in range(job, options.count, options.jobs):
            if options.limit and time.monotonic() - begun > options.limit:
                break
            rng = random.Random(f"{options.seed}:{number}")
            what = mutated(rng.choice(seeds), rng, path)
            try:
                counts[outcome(path, rng.random() < 0.25, watch, options)] += 1
            except (Found, Exception) as found:
                counts["FOUND"] += 1
                _report(number, what, found, path, options)
    return counts


def _hangs(*_: object) -> None:
    raise Found(f"a load of more than {HANGS} s")


def _report(number: int, what: list[str], found: BaseException, path: Path, options: argparse.Namespace) -> None:
    where = traceback.extract_tb(found.__traceback__)[-1]
    print(
        f"FOUND in {number}: {type(found).__name__}: {str(found)[:300]} ({where.filename}:{where.lineno})", flush=True
    )
    print("    by " + "; ".join(what), flush=True)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        (options.keep / f"{options.seed}-{number}.safetensors").write_bytes(path.read_bytes())


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="clipq files to start from; default: those of the tests")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes; they share the memory of the libraries")
    parser.add_argument("--limit", type=float, default=0, help="seconds until no more files are made; 0: none")
    parser.add_argument("--seconds", type=float, default=2.0, help="processor time that a load may take")
    parser.add_argument(
        "--megabytes", type=float, default=50.0, help="memory that a load may take above the file's size"
    )
    parser.add_argument("--runtime", action="store_true", help="read by clipq.runtime")
    parser.add_argument("--keep", type=Path, help="a folder for the files that found something")
    options = parser.parse_args(argv)
    if not options.runtime:
        options.files = options.files or sorted(p for p in SEEDS.glob("*.safetensors") if ".expected" not in p.name)
    return options


def main() -> int:
    """Exit status 1 if anything was found."""
    options = parse()
    import accelerate  # noqa: F401
    import open_clip  # noqa: F401
    import timm  # noqa: F401
    import transformers

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    socket.setdefaulttimeout(5)
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        parts = pool.starmap(work, [(job, options) for job in range(options.jobs)], chunksize=1)
    counts = sum(parts, collections.Counter())
    print(f"{sum(counts.values())} files: " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
    return 1 if counts["FOUND"] else 0


if __name__ == "__main__":
    sys.exit(main())
