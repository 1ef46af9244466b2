"""The rules of the house: imports point downwards, nothing heavy is imported early, files and functions stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "clipq"

ORDER = (
    "version",
    "lazy",
    "errors",
    "resources",
    "machine",
    "device",
    "timing",
    "arithmetic",
    "inputs",
    "spaces",
    "work",
    "zoo",
    "native",
    "kernels",
    "modules",
    "towers",
    "hosts",
    "methods",
    "mixing",
    "module_like",
    "models",
    "files",
    "runtime",
    "loading",
    "plugins",
    "description",
    "evaluation",
    "vectors",
    "matrices",
    "same_space",
    "embedding",
    "indexes",
    "retrieval",
    "alignment",
    "drifting",
    "training",
    "benchmark",
    "file_benchmark",
    "exports",
    "engines",
    "plots",
    "cli",
    "__main__",
    "__init__",
)
"""A room imports only from those before it (and from itself)."""

HEAVY = (
    *("torch", "torchvision", "open_clip", "transformers", "timm", "datasets", "accelerate", "numpy", "PIL"),
    *("matplotlib", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "openvino", "MNN"),
)
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *(path for name in ("scripts", "tests") for path in sorted((ROOT / name).rglob("*.py")))]
"""Files that are still to be taken apart; a file that no longer needs its place here loses it."""


def module_of(path: Path) -> str:
    """The name in ORDER that a file belongs to: its own, or its package's."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    """Modules of clipq that a file imports, wherever in the file it does so."""
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("clipq.")}
        elif isinstance(node, ast.ImportFrom) and node.level in (0, depth):
            parts = (node.module or "").split(".")
            parts = parts if node.level else (parts[1:] or [""]) if parts[0] == "clipq" else None
            if parts is not None:
                found |= {parts[0]} if parts[0] else {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level > depth:
            pytest.fail(f"{path.name} imports from above the package")
    return found & {module_of(other) for other in MODULES}


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_every_module_has_its_place_in_the_order():
    assert {module_of(path) for path in MODULES} <= set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    place = ORDER.index(module_of(path))
    upwards = {name for name in imports_of(path) if ORDER.index(name) > place}
    assert not upwards, f"{path.relative_to(ROOT)} imports {upwards}, which come after {ORDER[place]} in ORDER"


def test_the_import_walk_sees_imports():
    """The walk above would pass on anything if it found nothing."""
    assert {"errors", "version"} <= imports_of(PACKAGE / "cli" / "__init__.py")
    assert {"errors", "arithmetic", "loading"} <= imports_of(PACKAGE / "cli" / "options.py")
    assert imports_of(PACKAGE / "machine.py") == {"version"}
    assert {"loading", "models", "arithmetic"} <= imports_of(PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    too_long = len(path.read_text(encoding="utf-8").splitlines()) > 300
    assert not too_long, "300 lines are enough for one idea"
    for function in functions_of(path):
        where = f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        assert function.end_lineno - function.lineno + 1 <= 60, where
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        assert len([a for a in arguments if a.arg not in ("self", "cls")]) <= 8, where


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_asserts_no_environment_switches_no_pickles(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), f"{where}: a user's error is an exception of clipq.errors"
        if isinstance(node, ast.Attribute) and module_of(path) != "resources":
            assert node.attr not in ("environ", "getenv"), f"{where}: settings are arguments"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {name.name for name in node.names} | {getattr(node, "module", None)}
            assert not names & {"pickle", "joblib", "dill"}, f"{where}: nothing untrusted is unpickled"


IMPORT_ONLY = "import clipq; dir(clipq)"
COMMAND = "from clipq.cli import main\ntry: main({argv!r})\nexcept SystemExit as done: assert not done.code, done.code"


def heavy_modules_after(code: str) -> str:
    report = f"\nimport sys; print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    return run.stderr.split("HEAVY ")[-1].strip()


@pytest.mark.parametrize(
    "code",
    [
        IMPORT_ONLY,
        *(
            COMMAND.format(argv=argv)
            for argv in (["--help"], ["eval", "--help"], ["--version"], ["list"], ["info", "clipq-tiny"])
        ),
    ],
    ids=["import clipq", "--help", "eval --help", "--version", "list", "info NAME"],
)
def test_light_things_import_nothing_heavy(code):
    assert heavy_modules_after(code) == "[]"


def test_the_lean_import_check_sees_imports():
    assert heavy_modules_after("import numpy") == "['numpy']"
