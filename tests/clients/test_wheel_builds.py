"""The wheels that zig builds: libraries for every system, names and sizes, and the one for this machine run.

The libraries for macOS and Windows are read here and not run: .github/workflows/wheels.yml does that.
"""

from __future__ import annotations

import os
import platform
import runpy
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from once import made_once

for _package in ("ziglang", "auditwheel", "lief"):
    pytest.importorskip(_package)

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "building"))

import build_wheels  # noqa: E402
from exported_symbols import read_library  # noqa: E402

pytestmark = pytest.mark.clients

PLATFORMS = build_wheels.PLATFORMS
HERE = "linux-x86_64"
LIBRARY = "clipq/_native.so"
EMULATOR, ARM_LIBRARIES = "qemu-aarch64-static", Path("/usr/aarch64-linux-gnu")


def run(*command: object, **options: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Callable[[str], Path]:
    """A function that gives clipq-runtime for a platform, beside which lies clipq for this one: compiled once a run."""

    def wheel(name: str) -> Path:
        packages = [build_wheels.RUNTIME, *([build_wheels.WHOLE] if name == HERE else [])]
        build = partial(build_wheels.build_wheels, packages, [name])
        folder = made_once(tmp_path_factory, f"wheel-{name}", build)
        return next(folder.glob("clipq_runtime-*.whl"))

    return wheel


@pytest.fixture
def libraries(wheels, tmp_path) -> Callable[[str], Path]:
    """A function that gives the library of a platform's wheel."""
    return lambda name: Path(zipfile.ZipFile(wheels(name)).extract(LIBRARY, tmp_path / name))


@pytest.mark.parametrize("name", PLATFORMS)
def test_names_and_sizes(wheels, name):
    wheel = wheels(name)
    assert wheel.stat().st_size < 5_000_000
    assert wheel.name.startswith("clipq_runtime-")
    assert wheel.name.endswith(f"-py3-none-{'.'.join(sorted(PLATFORMS[name].tags))}.whl")


@pytest.mark.parametrize("name", PLATFORMS)
def test_libraries_as_an_independent_reader_sees_them(libraries, name):
    import lief

    path = libraries(name)
    one = lief.parse(str(path))
    exported = one.get_export().entries if isinstance(one, lief.PE.Binary) else one.exported_functions
    names = {entry.name for entry in exported}
    assert {one.removeprefix("_") for one in names} >= build_wheels.abi_functions()
    library = read_library(path)
    others = library.exports - build_wheels.abi_functions()
    assert all(build_wheels.is_unasked(other, PLATFORMS[name]) for other in others)
    assert not others or "macos" in name
    itself = {"@rpath/_native.so"} if "macos" in name else set()
    assert {getattr(entry, "name", entry) for entry in one.libraries} == set(library.needs) | itself
    assert library.least_system == ("11.0" if "macos" in name else "")
    if isinstance(one, lief.PE.Binary):
        assert one.header.characteristics & 0x2000, "a DLL"


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_folder_of_the_build_leaves_no_trace(libraries, name):
    assert build_wheels.native_library(PLATFORMS[name]) == libraries(name).read_bytes()


def test_the_same_sources_give_the_same_bytes(libraries, tmp_path, monkeypatch):
    """With nothing left of the first build but zig's own C++ library, which takes zig a minute."""
    monkeypatch.setenv("ZIG_LOCAL_CACHE_DIR", str(tmp_path / "local"))
    assert build_wheels.native_library(PLATFORMS[HERE]) == libraries(HERE).read_bytes()


@pytest.mark.parametrize("name", [name for name in PLATFORMS if name.startswith("linux")])
def test_auditwheel_finds_manylinux2014(wheels, name):
    said = " ".join(run(sys.executable, "-m", "auditwheel", "show", wheels(name)).split())
    assert f'consistent with the following platform tag: "manylinux_2_17_{PLATFORMS[name].architecture}"' in said


@pytest.mark.skipif(not sys.platform.startswith("linux") or platform.machine() != "x86_64", reason="another machine's")
def test_the_wheel_runs_in_a_fresh_environment(wheels, tmp_path):
    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh" / "bin" / "python"
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run(python, "-m", "pip", "install", "-q", wheels(HERE), env=own)
    said = run(python, ROOT / "scripts" / "building" / "try_wheel.py", cwd=tmp_path, env=own)
    assert "native library: portable" in said
    assert "clipq-tiny-int8.safetensors: 3 texts and 4 pictures" in said
    listed = run(python, "-m", "pip", "list", "--format=freeze", env=own)
    installed = {line.split("==")[0].lower() for line in listed.splitlines()}
    assert "clipq-runtime" in installed
    assert "torch" not in installed


def test_the_whole_package_has_the_same_library(wheels, libraries):
    (wheel,) = wheels(HERE).parent.glob("clipq-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(LIBRARY) == libraries(HERE).read_bytes()
        assert {"clipq/cli/__init__.py", "clipq/data/zoo/models.toml"} <= set(archive.namelist())


ARM = pytest.mark.skipif(
    not shutil.which(EMULATOR) or not ARM_LIBRARIES.is_dir(),
    reason=f"no {EMULATOR} or {ARM_LIBRARIES}; on Debian or Ubuntu: apt install qemu-user-static libc6-arm64-cross",
)


@ARM
def test_the_library_for_arm_computes_right_under_an_emulator(tmp_path):
    """The tests of csrc/test/ from the objects that the library is linked from."""
    build = runpy.run_path(str(ROOT / "scripts" / "building" / "fuzz_native.py"))["build"]
    programs = build(tmp_path, PLATFORMS["linux-aarch64"].compiler, build_wheels.STRIPPED)
    said = "\n" + "".join(run(EMULATOR, "-cpu", "max", "-L", ARM_LIBRARIES, one, "20") for one in programs)
    assert "\nneon_dotprod: 20 cases\n" in said
    assert "\nsteps of neon_dotprod: 20 cases\n" in said
    assert "\nthreads of neon_dotprod: 1 cases\n" in said
    assert "\nchosen: path 4\n" in said


LOAD = """
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char** argv) {
    void* library = dlopen(argv[1], RTLD_NOW);
    if (!library) return puts(dlerror()), 1;
    int (*path)(void) = (int (*)(void))dlsym(library, "clipq_path");
    return path ? printf("path %d\\n", path()), 0 : 1;
}
"""


@ARM
@pytest.mark.parametrize(("processor", "path"), [("max", 4), ("cortex-a53", 0)])
def test_the_library_for_arm_loads_under_an_emulator(libraries, tmp_path, processor, path):
    (tmp_path / "load.c").write_text(LOAD)
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", PLATFORMS["linux-aarch64"].target]
    run(*compiler, tmp_path / "load.c", "-o", tmp_path / "load", "-ldl")
    said = run(EMULATOR, "-cpu", processor, "-L", ARM_LIBRARIES, tmp_path / "load", libraries("linux-aarch64"))
    assert said == f"path {path}\n"
