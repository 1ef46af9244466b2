"""Wheels assembled from a wheel without a library: what is in them, what they say, and that pip installs them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.utils import parse_wheel_filename

import clipq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "building"))

import build_wheels  # noqa: E402
import closure  # noqa: E402
import wheel_files  # noqa: E402

LIBRARY = "clipq/_native.so"
FILES = {"house/__init__.py": b"value = 7\n", "house/data/words.txt": b"a\nb\n", "house/_native.so": b"\x7fELF"}
INFO = {"METADATA": b"Metadata-Version: 2.4\nName: house\nVersion: 1.0\n", "RECORD": b"old", "licenses/LICENSE": b"L"}
TAGS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64")


def run(*command: object, **options: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def installed(wheel: Path, place: Path, *options: str) -> Path:
    pip = (sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", place, *options)
    run(*pip, wheel)
    return place


def test_pip_installs_what_was_written(tmp_path):
    wheel = wheel_files.write_wheel(tmp_path, "house-1.0", ("any",), FILES, INFO)
    place = installed(wheel, tmp_path / "place")
    assert {name: (place / name).read_bytes() for name in FILES} == FILES
    assert (place / "house-1.0.dist-info" / "licenses" / "LICENSE").read_bytes() == b"L"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []  # nothing half-written is left


def test_the_same_files_in_any_order_are_the_same_bytes(tmp_path, monkeypatch):
    def built(folder: str, files: dict, info: dict, tags: tuple) -> bytes:
        (tmp_path / folder).mkdir()
        return wheel_files.write_wheel(tmp_path / folder, "house-1.0", tags, files, info).read_bytes()

    def turned(files: dict) -> dict:
        return dict(reversed(files.items()))

    first = built("first", FILES, INFO, TAGS)
    assert built("second", turned(FILES), turned(INFO), TAGS[::-1]) == first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dated = built("dated", FILES, INFO, TAGS)
    assert dated != first
    assert built("again", FILES, INFO, TAGS) == dated


def test_a_changed_byte_is_noticed_by_pip(tmp_path):
    """RECORD holds hashes of what is in the wheel, its own line none; pip's own check reads them."""
    wheel = wheel_files.write_wheel(tmp_path, "house-1.0", ("any",), FILES, INFO)
    record = zipfile.ZipFile(wheel).read("house-1.0.dist-info/RECORD").decode().splitlines()
    assert [line.split(",")[0] for line in record] == zipfile.ZipFile(wheel).namelist()
    assert record[-1] == "house-1.0.dist-info/RECORD,,"
    assert all(line.split(",")[1].startswith("sha256=") for line in record[:-1])
    reference = subprocess.run(
        ["openssl", "dgst", "-sha256", "-binary"], input=FILES["house/__init__.py"], capture_output=True, check=False
    )
    if reference.returncode == 0:
        import base64

        digest = base64.urlsafe_b64encode(reference.stdout).decode().rstrip("=")
        assert f"house/__init__.py,sha256={digest},10" in record


def test_tags(tmp_path):
    wheel = wheel_files.write_wheel(tmp_path, "house_tree-1.0", TAGS, FILES, INFO)
    name, version, _, tags = parse_wheel_filename(wheel.name)
    assert (name, str(version)) == ("house-tree", "1.0")
    assert {str(tag) for tag in tags} == {f"py3-none-{tag}" for tag in TAGS}
    text = zipfile.ZipFile(wheel).read("house_tree-1.0.dist-info/WHEEL").decode()
    assert {line[5:] for line in text.splitlines() if line.startswith("Tag: ")} == {str(tag) for tag in tags}
    assert "Root-Is-Purelib: false" in text


def test_every_platform_has_the_tag_of_its_oldest_system():
    platforms = build_wheels.PLATFORMS
    assert {name: set(one.tags) for name, one in platforms.items()} == {
        "linux-x86_64": {"manylinux2014_x86_64", "manylinux_2_17_x86_64"},
        "linux-aarch64": {"manylinux2014_aarch64", "manylinux_2_17_aarch64"},
        "macos-arm64": {"macosx_11_0_arm64"},
        "windows-x86_64": {"win_amd64"},
    }
    for name, platform in platforms.items():
        assert platform.target.endswith({"linux": "-gnu.2.17", "macos": "-macos.11.0"}.get(platform.system, "-gnu")), (
            name
        )


@pytest.fixture(scope="module")
def parts() -> dict[str, tuple[dict[str, bytes], dict[str, bytes]]]:
    return {package: build_wheels.contents(package) for package in (build_wheels.WHOLE, build_wheels.RUNTIME)}


def test_the_runtime_is_a_part_of_the_whole_with_the_same_bytes(parts):
    whole, part = (parts[package][0] for package in (build_wheels.WHOLE, build_wheels.RUNTIME))
    assert part.items() < whole.items()
    modules = closure.closure(ROOT / "clipq", build_wheels.RUNTIME_ROOT).values()
    assert {name for name in part if name.endswith(".py")} == {path.relative_to(ROOT).as_posix() for path in modules}
    assert {"clipq/__init__.py", "clipq/py.typed", "clipq/runtime/__init__.py", "clipq/errors.py"} <= set(part)
    beside = {path for path in (ROOT / "clipq" / "runtime").rglob("*") if path.is_file()}
    data = {path.relative_to(ROOT).as_posix() for path in beside if path.suffix not in (".py", ".pyc")}
    assert data <= set(part)
    assert not [name for name in part if name.startswith(("clipq/data/eval", "clipq/cli/", "clipq/plugins/"))]
    assert LIBRARY not in whole, "the library of this machine must not be in wheels for others"


def test_what_the_runtime_says_of_itself(parts):
    whole, part = (parts[package][1] for package in (build_wheels.WHOLE, build_wheels.RUNTIME))
    metadata, reference = (Metadata.from_email(info["METADATA"]) for info in (part, whole))
    assert (metadata.name, str(metadata.version)) == ("clipq-runtime", clipq.__version__)
    names = sorted(requirement.name for requirement in metadata.requires_dist if not requirement.marker)
    assert names == ["ftfy", "numpy", "pillow", "tokenizers"]
    assert metadata.requires_python == reference.requires_python
    assert metadata.license_expression == reference.license_expression == "Apache-2.0"
    assert metadata.license_files == reference.license_files
    assert {f"licenses/{name}" for name in metadata.license_files} == {n for n in part if n.startswith("licenses/")}
    assert metadata.description_content_type == "text/markdown"
    assert "not both" in metadata.description
    assert not metadata.provides_extra
    assert "entry_points.txt" not in part, "the command needs the whole package"


@pytest.fixture(scope="module")
def place(parts, tmp_path_factory) -> Path:
    """clipq-runtime with the library of this machine, installed into a folder."""
    library = ROOT / LIBRARY
    if not library.is_file():
        pytest.skip("the native library is not built: python hatch_build.py")
    files, info = parts[build_wheels.RUNTIME]
    folder = tmp_path_factory.mktemp("runtime")
    name = f"clipq_runtime-{clipq.__version__}"
    wheel = wheel_files.write_wheel(folder, name, ("any",), {**files, LIBRARY: library.read_bytes()}, info)
    return installed(wheel, folder / "place")


def in_place(place: Path, *arguments: object) -> str:
    return run(sys.executable, *arguments, cwd=place.parent, env={**os.environ, "PYTHONPATH": str(place)})


def test_the_installed_runtime_runs(place):
    said = in_place(place, ROOT / "scripts" / "building" / "try_wheel.py")
    assert f"clipq {clipq.__version__} in {place}" in said
    assert "native library: portable" in said


REFUSED = """
import clipq
for name in clipq.__all__:
    try:
        getattr(clipq, name)
    except ImportError as error:
        assert isinstance(error, clipq.ClipqError) and f"clipq.{name} " in str(error), error
        assert "install the whole package" in str(error) and "pip install clipq" in str(error), error
        print(name)
"""


def test_names_of_the_whole_package_say_what_to_install(place):
    refused = set(in_place(place, "-c", REFUSED).split())
    assert {"load", "quantize", "Model", "evaluate", "export"} <= refused
    assert not refused & {"ClipqError", "__version__"}


def test_transformers_is_left_alone(place):
    code = "import clipq, sys; from transformers.quantizers import auto; print('clipq' in auto.AUTO_QUANTIZER_MAPPING)"
    assert in_place(place, "-c", code).split() == ["False"]
