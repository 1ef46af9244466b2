"""Run the C++ tests of csrc/ (random shapes and numbers against plain arithmetic), under the sanitizers if asked.

python scripts/building/fuzz_native.py [--sanitize] [--cases 300] [--jobs 2] [--seed 0]
python scripts/building/fuzz_native.py --threads-sanitizer --only test_threads
python scripts/building/fuzz_native.py --cross aarch64-linux-gnu --runner "qemu-aarch64-static -cpu max"

A failure names its seed: `--seed SEED --cases 1` runs that case again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
SANITIZE_THREADS = ("-fsanitize=thread", "-g")

sys.path.insert(0, str(ROOT))

import hatch_build  # noqa: E402


def main() -> None:
    options = arguments().parse_args()
    compiler = [f"{options.cross}-g++"] if options.cross else hatch_build.find_compiler()
    with tempfile.TemporaryDirectory() as folder:
        programs = build(Path(folder), compiler, flags_of(options), options.only)
        runner = shlex.split(options.runner)
        runs = [[*runner, str(program), *seeds] for program in programs for seeds in shares(options)]
        with ThreadPoolExecutor(options.jobs) as pool:
            sys.exit(max(pool.map(status_of, runs)))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sanitizers = parser.add_mutually_exclusive_group()
    sanitizers.add_argument("--sanitize", action="store_true", help="compile with the address and undefined sanitizers")
    sanitizers.add_argument("--threads-sanitizer", action="store_true", help="compile with the thread sanitizer")
    parser.add_argument("--cases", type=int, default=300, help="random cases of each program, on each path")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others follow")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side, which share the cases")
    parser.add_argument("--only", default="*", metavar="PROGRAM", help="one file of csrc/test/, such as test_steps")
    parser.add_argument("--cross", metavar="TARGET", help="compile with TARGET-g++")
    parser.add_argument("--runner", default="", metavar="COMMAND", help="what runs the program, such as an emulator")
    return parser


def flags_of(options: argparse.Namespace) -> list[str]:
    # -Wno-psabi: the emulated kernels' vectors, wider than the processor's registers, never leave their file.
    # -static: the emulator then needs none of the target's libraries. The sanitizers cannot be linked so.
    plain = ["-static"] if options.cross else []
    link = SANITIZE if options.sanitize else SANITIZE_THREADS if options.threads_sanitizer else plain
    return ["-O1", "-Werror", "-Wno-psabi", *link]


def build(folder: Path, compiler: list[str], extra: list[str], only: str = "*") -> list[Path]:
    """Each file of csrc/test/ as a program of its own; `only` those of that name."""
    objects, have = hatch_build.compile_parts(compiler, folder, extra)
    link = hatch_build.link_flags(compiler)
    sources = sorted((hatch_build.SOURCES / "test").glob(f"{only}.cpp"))
    if not sources:
        sys.exit(f"no program is called {only!r}; the files of {hatch_build.SOURCES / 'test'} name them")

    def compile_to(out: Path, *inputs: object) -> Path:
        command = [*compiler, *hatch_build.FLAGS, *extra, *have, *inputs, "-o", out]
        subprocess.run(list(map(str, command)), check=True)
        return out

    api = compile_to(folder / "api.o", "-c", hatch_build.SOURCES / "api.cpp")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda s: compile_to(folder / s.stem, s, api, *objects, *link), sources))


def shares(options: argparse.Namespace) -> list[list[str]]:
    """Of each process: how many cases, and the first seed."""
    bounds = [options.cases * job // options.jobs for job in range(options.jobs + 1)]
    pairs = zip(bounds, bounds[1:], strict=False)
    return [[str(end - begin), str(options.seed + begin)] for begin, end in pairs if end > begin]


def status_of(run: list[str]) -> int:
    """1 if a program fails, which then says why; its whole output at once, so that two do not mix."""
    done = subprocess.run(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    failed = done.returncode != 0
    print(f"{done.stdout}{f'FAILED, exit status {done.returncode}: {shlex.join(run)}' if failed else ''}", flush=True)
    return int(failed)


if __name__ == "__main__":
    main()
