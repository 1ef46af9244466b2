"""Run the C++ test of csrc/ (random shapes and numbers against plain arithmetic), under the sanitizers if asked.

python scripts/fuzz_native.py [--sanitize] [--cases 300]
"""

from __future__ import annotations

import argparse
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
    options = parser.parse_args()
    # -Wno-psabi: the emulated kernels' vectors, wider than the processor's registers, never leave their file.
    extra = ("-O1", "-Werror", "-Wno-psabi", *(SANITIZE if options.sanitize else ()))
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "test_kernels"
        compiler = hatch_build.find_compiler()
        objects, have = hatch_build.compile_parts(compiler, Path(folder), extra)
        sources = [hatch_build.SOURCES / "api.cpp", hatch_build.SOURCES / "test" / "test_kernels.cpp", *objects]
        link = [flag for flag in hatch_build.LINK if flag != "-shared"]
        command = [*compiler, *hatch_build.FLAGS, *extra, *have, *sources, *link, "-o", program]
        subprocess.run(list(map(str, command)), check=True)
        sys.exit(subprocess.run([str(program), str(options.cases)], check=False).returncode)


if __name__ == "__main__":
    main()
