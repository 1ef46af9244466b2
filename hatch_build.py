"""Builds the native CPU kernels (csrc/) into clipq/_native.so: as a hatchling hook, or `python hatch_build.py` by hand.

Without a C++ compiler, or if it fails, clipq installs all the same and computes with torch; `clipq info` says so.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # by hand, in an environment without the build system
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "csrc"
LIBRARY = "_native.so"  # one name everywhere: it is loaded by path, never imported
COMPILERS = ("g++", "clang++", "c++")

# -ffp-contract=off: every path rounds alike, so that they give the same bits (see csrc/clipq.h).
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra")
LINK = ("-shared", "-pthread", *(["-ldl"] if sys.platform.startswith("linux") else []))
PLAIN = ("portable", "cpu", "parallel")
X86 = {
    "avx2": ("-mavx2",),
    "avx_vnni": ("-mavx2", "-mavxvnni"),
    "avx512_vnni": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
}


class NotBuiltError(Exception):
    """The library could not be built; the message is one line."""


class CustomBuildHook(BuildHookInterface):
    """Puts the library into the wheel, or into the checkout for an editable install."""

    def initialize(self, version: str, build_data: dict) -> None:
        self.scratch = tempfile.mkdtemp()
        editable = version == "editable"
        library = (ROOT / "clipq" if editable else Path(self.scratch)) / LIBRARY
        try:
            build(library)
        except NotBuiltError as error:
            self.app.display_warning(f"clipq is installed without its native CPU kernels: {error}")
            return
        if not editable:
            build_data["force_include"][str(library)] = f"clipq/{LIBRARY}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)


def build(library: Path, extra: Sequence[str] = ()) -> None:
    """Compile and link `library` with `extra` flags. Raises `NotBuiltError` with the reason."""
    compiler = find_compiler()
    with tempfile.TemporaryDirectory() as folder:
        objects, have = compile_parts(compiler, Path(folder), extra)
        linked = Path(folder) / LIBRARY
        _must_run(compiler, *FLAGS, *extra, *have, SOURCES / "api.cpp", *objects, *LINK, "-o", linked)
        beside = library.with_suffix(f".{os.getpid()}.tmp")
        shutil.copy(linked, beside)
        os.replace(beside, library)  # a process that has the old one loaded keeps it


def compile_parts(compiler: Sequence[str], folder: Path, extra: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
    """Object files of everything but api.cpp, side by side, and the macros that tell api.cpp which sets they hold.

    An instruction set that the compiler does not know is left out; the rest is needed.
    """
    sets = X86 if platform.machine().lower() in ("x86_64", "amd64") else {}
    jobs = dict.fromkeys(PLAIN, ()) | sets
    commands = {name: (*FLAGS, *extra, *jobs[name], "-c", SOURCES / f"{name}.cpp") for name in jobs}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {n: pool.submit(_problem, compiler, *commands[n], "-o", folder / f"{n}.o") for n in jobs}
    problems = {name: run.result() for name, run in running.items()}
    for name in PLAIN:
        if problems[name]:
            raise NotBuiltError(f"{compiler[0]} failed: {problems[name]}")
    have = [f"-DCLIPQ_HAVE_{name.upper()}" for name in sets if not problems[name]]
    return [folder / f"{name}.o" for name in jobs if not problems[name]], have


def find_compiler() -> list[str]:
    """$CXX if set, else the first of `COMPILERS` on the PATH."""
    if asked := shlex.split(os.environ.get("CXX", "")):
        return asked
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise NotBuiltError(f"no C++ compiler found ({', '.join(COMPILERS)}); install one, or name it in CXX")


def _must_run(compiler: Sequence[str], *arguments: object) -> None:
    if problem := _problem(compiler, *arguments):
        raise NotBuiltError(f"{compiler[0]} failed: {problem}")


def _problem(compiler: Sequence[str], *arguments: object) -> str | None:
    """None if the compiler did its work, else the line that tells why not. All it says is passed on."""
    try:
        done = subprocess.run([*compiler, *map(str, arguments)], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    sys.stderr.write(done.stderr)
    if done.returncode == 0:
        return None
    lines = done.stderr.splitlines()
    errors = [line for line in lines if "error" in line.lower()] or lines
    return errors[0].strip() if errors else f"exit status {done.returncode}"


if __name__ == "__main__":
    try:
        build(ROOT / "clipq" / LIBRARY)
    except NotBuiltError as error:
        sys.exit(f"clipq's native CPU kernels are not built: {error}")
