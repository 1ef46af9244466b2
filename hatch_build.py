"""Builds the native CPU kernels (csrc/) into clipq/_native.so: as a hatchling hook, or `python hatch_build.py` by hand.

Without a C++ compiler, or if it fails, clipq installs all the same and computes with torch; `clipq info` says so.
"""

from __future__ import annotations

import os
import re
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

MACOS = "11.0"  # the first on Arm; without naming one, the library would need the version it was built on

# -ffp-contract=off: every path rounds alike, so that they give the same bits (see csrc/clipq.h).
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"),
    *([f"-mmacosx-version-min={MACOS}"] if sys.platform == "darwin" else []),
)
LINK = ("-pthread",)
PLAIN = (
    "portable",
    "cpu",
    "system",
    "crew",
    "parallel",
    "steps",
    "attention",
    "packing",
    "plan",
    "blocks",
    "ends",
    "resize",
)
X86 = {
    "avx2": ("-mavx2", "-mfma"),
    "avx_vnni": ("-mavx2", "-mfma", "-mavxvnni"),
    "avx512_vnni": ("-mavx512f", "-mfma", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
}
ARM = {"neon_dotprod": ("-march=armv8.2-a+dotprod",)}
ZIG = {"neon_dotprod": ("-mcpu=generic+v8_2a+dotprod",)}  # which has its own names for processors
SETS = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}
"""Instruction sets by architecture, as compilers call it: each a source file and the flags for it alone."""


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
            build_data["tag"] = f"py3-none-{platform_tag()}"

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)


def build(library: Path, extra: Sequence[str] = (), compiler: Sequence[str] = ()) -> list[str]:
    """Compile and link `library` with `extra` flags, by `compiler` or the one found; return its macros.

    Raises `NotBuiltError` with the reason.
    """
    compiler = list(compiler) or find_compiler()
    with tempfile.TemporaryDirectory() as folder:
        objects, have = compile_parts(compiler, Path(folder), extra)
        linked = Path(folder) / LIBRARY
        inputs = (*have, SOURCES / "api.cpp", *objects)
        _must_run(compiler, *FLAGS, *extra, *inputs, *library_flags(compiler), "-o", linked)
        beside = library.with_suffix(f".{os.getpid()}.tmp")
        shutil.copy(linked, beside)
        os.replace(beside, library)  # a process that has the old one loaded keeps it
    return have


def compile_parts(compiler: Sequence[str], folder: Path, extra: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
    """Object files of everything but api.cpp, side by side, and the macros that tell api.cpp which sets they hold.

    An instruction set that the compiler does not know is left out; the rest is needed.
    """
    sets = instruction_sets(compiler)
    jobs = dict.fromkeys(PLAIN, ()) | sets
    commands = {name: (*FLAGS, *extra, *jobs[name], "-c", SOURCES / f"{name}.cpp") for name in jobs}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {n: pool.submit(_problem, compiler, *commands[n], "-o", folder / f"{n}.o") for n in jobs}
    problems = {name: run.result() for name, run in running.items()}
    for name in PLAIN:
        if problems[name]:
            raise NotBuiltError(f"{compiler[0]} failed: {problems[name]}")
    have = [macro(name) for name in sets if not problems[name]]
    return [folder / f"{name}.o" for name in jobs if not problems[name]], have


def macro(name: str) -> str:
    """What tells api.cpp that an instruction set is there."""
    return f"-DCLIPQ_HAVE_{name.upper()}"


def instruction_sets(compiler: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Those of what `compiler` compiles for, with its flags for each."""
    sets = SETS.get(architecture(compiler), {})
    is_zig = "ziglang" in compiler or Path(compiler[0]).stem == "zig"
    return {name: ZIG.get(name, flags) if is_zig else flags for name, flags in sets.items()}


def find_compiler() -> list[str]:
    """$CXX if set, else the first of `COMPILERS` on the PATH."""
    if asked := shlex.split(os.environ.get("CXX", "")):
        return asked
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise NotBuiltError(f"no C++ compiler found ({', '.join(COMPILERS)}); install one, or name it in CXX")


def target(compiler: Sequence[str]) -> str:
    """What `compiler` compiles for, such as x86_64-linux-gnu; empty if it does not tell."""
    try:
        done = subprocess.run([*compiler, "-dumpmachine"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def architecture(compiler: Sequence[str]) -> str:
    """The processor that `compiler` compiles for, such as x86_64 or aarch64; empty if it does not tell."""
    return target(compiler).split("-")[0]


def link_flags(compiler: Sequence[str]) -> list[str]:
    """What a program or a library of csrc/ is linked with on the system that `compiler` compiles for."""
    return [*LINK, *(["-ldl"] if "linux" in target(compiler) else [])]  # a part of the C library since glibc 2.34


def library_flags(compiler: Sequence[str]) -> list[str]:
    """What a library is linked with besides: only the C ABI is to be seen from outside, and no folder of the build."""
    system = target(compiler)
    by_system = {
        "linux": f"-Wl,--version-script={SOURCES / 'exports.map'}",
        "darwin": f"-Wl,-install_name,@rpath/{LIBRARY}",
        "macos": f"-Wl,-install_name,@rpath/{LIBRARY}",  # as zig calls it
    }
    return ["-shared", *(flag for name, flag in by_system.items() if name in system), *link_flags(compiler)]


def platform_tag() -> str:
    """The wheel's: on macOS of the library, since a universal Python's own would name two architectures."""
    on_mac = sys.platform == "darwin"
    platform = f"macosx-{MACOS}-{architecture(find_compiler())}" if on_mac else sysconfig.get_platform()
    return re.sub("[-.]", "_", platform)


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
