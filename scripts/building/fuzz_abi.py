"""Coverage-guided fuzzing of the C ABI (csrc/fuzz/abi.cpp) under the address and undefined-behaviour sanitizers.

    python scripts/building/fuzz_abi.py --compiler clang++-14 -max_total_time=60 -max_len=4096

Needs clang with libFuzzer (on Debian: clang-14 and libclang-rt-14-dev). All other options are libFuzzer's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SANITIZE = ("-O1", "-g", "-Wno-everything", "-fno-sanitize-recover=all")

sys.path.insert(0, str(ROOT))

import hatch_build  # noqa: E402


def build(compiler: list[str], folder: Path) -> Path:
    """The fuzzer, with everything of csrc/ instrumented."""
    extra = [*SANITIZE, "-fsanitize=fuzzer-no-link,address,undefined"]
    objects, have = hatch_build.compile_parts(compiler, folder, extra)
    api, program = folder / "api.o", folder / "abi"
    link = hatch_build.link_flags(compiler)
    fuzzer = ["-fsanitize=fuzzer,address,undefined", hatch_build.SOURCES / "fuzz" / "abi.cpp"]
    steps = (
        (*extra, "-c", hatch_build.SOURCES / "api.cpp", "-o", api),
        (*SANITIZE, *fuzzer, api, *objects, *link, "-o", program),
    )
    for step in steps:
        subprocess.run(list(map(str, (*compiler, *hatch_build.FLAGS, *have, *step))), check=True)
    return program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="clang++")
    args, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(subprocess.run([build([args.compiler], Path(folder)), *rest], check=False).returncode)


if __name__ == "__main__":
    main()
