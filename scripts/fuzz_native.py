"""Run the C++ tests of csrc/ (random shapes and numbers against plain arithmetic), under the sanitizers if asked.

python scripts/fuzz_native.py [--sanitize] [--cases 300]
python scripts/fuzz_native.py --cross aarch64-linux-gnu --runner "qemu-aarch64-static -cpu max"
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")

sys.path.insert(0, str(ROOT))

import hatch_build  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sanitize", action="store_true", help="compile with the address and undefined sanitizers")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--cross", metavar="TARGET", help="compile with TARGET-g++")
    parser.add_argument("--runner", default="", metavar="COMMAND", help="what runs the program, such as an emulator")
    options = parser.parse_args()
    compiler = [f"{options.cross}-g++"] if options.cross else hatch_build.find_compiler()
    with tempfile.TemporaryDirectory() as folder:
        programs = build(Path(folder), compiler, flags_of(options))
        runs = [[*shlex.split(options.runner), str(program), str(options.cases)] for program in programs]
        sys.exit(max(subprocess.run(run, check=False).returncode != 0 for run in runs))


def flags_of(options: argparse.Namespace) -> list[str]:
    # -Wno-psabi: the emulated kernels' vectors, wider than the processor's registers, never leave their file.
    # -static: the emulator then needs none of the target's libraries. The sanitizers cannot be linked so.
    link = SANITIZE if options.sanitize else ["-static"] if options.cross else []
    return ["-O1", "-Werror", "-Wno-psabi", *link]


def build(folder: Path, compiler: list[str], extra: list[str]) -> list[Path]:
    """Each file of csrc/test/ as a program of its own."""
    objects, have = hatch_build.compile_parts(compiler, folder, extra)
    link = [flag for flag in hatch_build.LINK if flag != "-shared"]
    programs = []
    for source in sorted((hatch_build.SOURCES / "test").glob("*.cpp")):
        programs.append(folder / source.stem)
        inputs = [hatch_build.SOURCES / "api.cpp", source, *objects]
        command = [*compiler, *hatch_build.FLAGS, *extra, *have, *inputs, *link, "-o", programs[-1]]
        subprocess.run(list(map(str, command)), check=True)
    return programs


if __name__ == "__main__":
    main()
