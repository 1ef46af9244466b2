"""Build the wheels of clipq-runtime and clipq for Linux, macOS and Windows on one machine, by zig's C++ compiler.

    python scripts/building/build_wheels.py [--package clipq-runtime] [--platform linux-x86_64] [--output dist]

Needs `pip install 'clipq[wheels]'`. clipq-runtime has the modules that `clipq.runtime` needs, and no others. The same
sources and the same versions of these packages give the same bytes, whichever machine it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import closure  # noqa: E402
import exported_symbols  # noqa: E402
import wheel_files  # noqa: E402

import hatch_build  # noqa: E402

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WHOLE, RUNTIME = "clipq", "clipq-runtime"
RUNTIME_ROOT = "clipq.runtime"
"""The module that clipq-runtime is there for."""

RUNTIME_LIMIT = 5_000_000
"""Bytes of a wheel of clipq-runtime, at most."""

DATA = {"clipq.zoo.registry": ("clipq/data/zoo/models.toml",)}
"""What a module reads that does not lie beside it."""

STRIPPED = ("-g0", "-s")


@dataclass(frozen=True)
class Platform:
    """Where a wheel runs. `target`: as zig writes it, with the oldest C library or system. `tags`: the wheel's."""

    target: str
    tags: tuple[str, ...]
    system: str
    architecture: str
    needs: str
    """What the library may be linked with: a pattern of names."""
    unasked: str = ""
    """What zig's linker exports besides, and has no option to hide: a pattern of names."""

    @property
    def compiler(self) -> list[str]:
        return [sys.executable, "-m", "ziglang", "c++", "-target", self.target]


_GLIBC = r"lib(c|m|pthread|dl)\.so\.\d|ld-linux-(x86-64|aarch64)\.so\.\d"
PLATFORMS = {
    "linux-x86_64": Platform(
        "x86_64-linux-gnu.2.17", ("manylinux_2_17_x86_64", "manylinux2014_x86_64"), "linux", "x86_64", _GLIBC
    ),
    "linux-aarch64": Platform(
        "aarch64-linux-gnu.2.17", ("manylinux_2_17_aarch64", "manylinux2014_aarch64"), "linux", "aarch64", _GLIBC
    ),
    "macos-arm64": Platform(
        f"aarch64-macos.{hatch_build.MACOS}",
        (f"macosx_{hatch_build.MACOS.replace('.', '_')}_arm64",),
        *("macos", "aarch64", r"/usr/lib/libSystem\.B\.dylib"),
        unasked="_Z(nw|na|dl|da)\\w+|__dso_handle|_mh_dylib_header",  # C++'s new and delete; the linker's own
    ),
    "windows-x86_64": Platform(
        "x86_64-windows-gnu", ("win_amd64",), "windows", "x86_64", r"(?i)(kernel32|ntdll|api-ms-win-crt-[\w-]+)\.dll"
    ),
}


class WheelError(Exception):
    """A wheel that cannot be built, or is not as it has to be; the message is one line."""


def main() -> None:
    options = arguments().parse_args()
    try:
        for path in build_wheels(options.package, options.platform, options.output):
            print(f"{path}  {path.stat().st_size / 1e6:.2f} MB", flush=True)
    except (WheelError, closure.ClosureError, hatch_build.NotBuiltError) as error:
        sys.exit(f"no wheel: {error}")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", nargs="+", choices=(RUNTIME, WHOLE), default=[RUNTIME, WHOLE])
    parser.add_argument("--platform", nargs="+", choices=PLATFORMS, default=list(PLATFORMS))
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="FOLDER")
    return parser


def build_wheels(packages: list[str], platforms: list[str], output: Path) -> list[Path]:
    """The wheels, in `output`. Raises `WheelError`, `ClosureError` or `NotBuiltError`."""
    if not importlib.util.find_spec("ziglang"):
        raise WheelError("there is no zig to compile with; install it with: pip install 'clipq[wheels]'")
    output.mkdir(parents=True, exist_ok=True)
    parts = {package: contents(package) for package in packages}
    written = []
    for name in platforms:
        library = native_library(PLATFORMS[name])
        for package, (files, info) in parts.items():
            everything = {**files, f"clipq/{hatch_build.LIBRARY}": library}
            distribution = f"{package.replace('-', '_')}-{version()}"
            written.append(wheel_files.write_wheel(output, distribution, PLATFORMS[name].tags, everything, info))
            check_size(package, written[-1])
    return written


def version() -> str:
    """Of both packages."""
    text = (ROOT / "clipq" / "version.py").read_text(encoding="utf-8")
    return re.search(settings()["tool"]["hatch"]["version"]["pattern"], text)["version"]


def settings() -> dict:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def contents(package: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The files of a package but for its library, and of its .dist-info folder, as hatchling makes them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "--no-hooks", "-d", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WheelError(f"hatchling failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
        files, info = wheel_files.read_wheel(next(Path(folder).glob("*.whl")))
    return (files, info) if package == WHOLE else (runtime_files(files), runtime_info(info))


def runtime_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those of the whole package's files that `RUNTIME_ROOT` needs: its modules, and the data of their folders."""
    needed = closure.closure(ROOT / "clipq", RUNTIME_ROOT)
    modules = {path.relative_to(ROOT).as_posix() for path in needed.values()}
    folders = {str(Path(name).parent.as_posix()) for name in modules if name.endswith("/__init__.py")}
    data = {extra for name in needed for extra in DATA.get(name, ())}

    def belongs(name: str) -> bool:
        if name.endswith(".py"):
            return name in modules
        below_root = name.startswith(RUNTIME_ROOT.replace(".", "/") + "/")
        return below_root or name in data or Path(name).parent.as_posix() in folders

    missing = (modules | data) - set(files)
    if missing:
        raise WheelError(
            f"{', '.join(sorted(missing))}: needed by {RUNTIME_ROOT}, and not in the whole package's wheel"
        )
    return {name: content for name, content in files.items() if belongs(name)}


def runtime_info(info: Mapping[str, bytes]) -> dict[str, bytes]:
    """The whole package's .dist-info for clipq-runtime: other dependencies, and no commands."""
    about = settings()["tool"][RUNTIME]
    description = (ROOT / about["readme"]).read_text(encoding="utf-8")
    licenses = {name: content for name, content in info.items() if name.startswith("licenses/")}
    return {**licenses, "METADATA": wheel_files.metadata_of_part(info["METADATA"], RUNTIME, about, description)}


def native_library(platform: Platform) -> bytes:
    """The library for a platform, compiled by zig. Raises `WheelError` for one that is not as it has to be."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / hatch_build.LIBRARY
        have = hatch_build.build(path, STRIPPED, platform.compiler)
        missing = [name for name in hatch_build.SETS[platform.architecture] if hatch_build.macro(name) not in have]
        if missing:
            raise WheelError(f"the library for {platform.target} lacks {', '.join(missing)}; zig says why above")
        check_library(path, platform)
        return path.read_bytes()


def check_library(path: Path, platform: Platform) -> None:
    """Raise `WheelError` unless the library is of the platform, offers the C ABI alone, and needs the system alone."""
    library = exported_symbols.read_library(path)
    if (library.system, library.architecture) != (platform.system, platform.architecture):
        raise WheelError(f"the library for {platform.target} is one for {library.system} {library.architecture}")
    if other := sorted(abi_functions() ^ {name for name in library.exports if not is_unasked(name, platform)}):
        raise WheelError(f"the library for {platform.target} and csrc/clipq.h differ in {', '.join(other[:8])}")
    if strange := [name for name in library.needs if not re.fullmatch(platform.needs, name)]:
        raise WheelError(f"the library for {platform.target} needs {', '.join(strange)}, which a wheel does not bring")


def is_unasked(name: str, platform: Platform) -> bool:
    return bool(platform.unasked and re.fullmatch(platform.unasked, name))


def abi_functions() -> frozenset[str]:
    """The functions that csrc/clipq.h declares."""
    header = (hatch_build.SOURCES / "clipq.h").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^CLIPQ_API [\w ]+?(clipq_\w+)\(", header, re.MULTILINE))


def check_size(package: str, path: Path) -> None:
    if package == RUNTIME and path.stat().st_size > RUNTIME_LIMIT:
        raise WheelError(f"{path.name} has {path.stat().st_size} bytes; at most {RUNTIME_LIMIT} are allowed")


if __name__ == "__main__":
    main()
