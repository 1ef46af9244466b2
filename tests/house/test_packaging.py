"""The wheel: what is in it, and that it works installed somewhere that has never seen the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import clipq

ROOT = Path(__file__).resolve().parents[2]


def run(*command: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel installed in it; the other packages come from the interpreter that runs the tests."""
    place = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", place)
    run(*pip, wheel, cwd=place)
    return place


def clipq_from(place: Path, *arguments: object, cwd: Path) -> str:
    """Run the installed console script, away from the checkout."""
    env = {**os.environ, "PYTHONPATH": str(place)}
    return run(sys.executable, place / "bin" / "clipq", *arguments, cwd=cwd, env=env).stdout


def test_the_wheel_has_the_package_and_its_data_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith(f"clipq-{clipq.__version__}-py3-none-")
    assert {"clipq/__init__.py", "clipq/py.typed", "clipq/data/zoo/models.toml"} <= names
    assert any(name.startswith("clipq/data/eval/tasks/") and name.endswith(".toml") for name in names)
    for notice in ("LICENSE", "clipq/runtime/vocabulary/NOTICE.md"):
        assert any(name.endswith(f"dist-info/licenses/{notice}") for name in names)
    assert not [name for name in names if name.startswith("clipq/data/eval/results")]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"clipq"}


def test_every_file_of_every_room_is_in_the_wheel(wheel):
    """And only those: clipq/data/ is what lies beside the package, the native library was built with the wheel."""
    rooms = [path.relative_to(ROOT) for path in (ROOT / "clipq").rglob("*") if path.is_file()]
    expected = {path.as_posix() for path in rooms if _is_source(path)}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("clipq/")}
    assert {name for name in names if not name.startswith("clipq/data/") and _is_source(Path(name))} == expected
    assert {"clipq/arithmetic/schemes.py", "clipq/towers/__init__.py", "clipq/cli/showcase/page.html"} <= expected
    assert {"clipq/runtime/vocabulary/clip_merges.txt", "clipq/runtime/vocabulary/characters.txt"} <= expected


def _is_source(path: Path) -> bool:
    return "__pycache__" not in path.parts and not path.name.startswith("_native")


def test_the_installed_package_is_the_one_that_runs(installed, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(installed)}
    found = run(sys.executable, "-c", "import clipq; print(clipq.__file__)", cwd=tmp_path, env=env).stdout
    assert Path(found.strip()).is_relative_to(installed)
    assert clipq_from(installed, "--version", cwd=tmp_path).split() == ["clipq", clipq.__version__]


def test_the_installed_package_lists_its_models(installed, tmp_path):
    assert "clipq-tiny" in clipq_from(installed, "list", cwd=tmp_path)


def test_the_installed_package_runs_the_demo(installed, tmp_path):
    """With few pictures and one run of each."""
    code = "from clipq.cli import demo, main; demo.QUICK = demo.Scope(8, 8, 1, (1,)); raise SystemExit(main())"
    env = {**os.environ, "PYTHONPATH": str(installed)}
    run(sys.executable, "-c", code, "demo", "--quick", "--threads", 1, "-o", "demo.html", cwd=tmp_path, env=env)
    page = (tmp_path / "demo.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 12
