"""Which modules clipq-runtime has: the walk over import statements, and what it finds in clipq."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "building"))

import build_wheels  # noqa: E402
import closure  # noqa: E402

HEAVY = {"torch", "torchvision", "open_clip", "transformers", "timm", "datasets", "accelerate", "safetensors"}
IMPORT_NAMES = {"pillow": "PIL"}
"""Of distributions whose import name is another."""


def package(place: Path, **files: str) -> Path:
    """A package `house` with the given modules; `room__name` lies in a folder."""
    for name, text in files.items():
        path = (place / "house").joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in {path.parent for path in (place / "house").rglob("*.py")} | {place / "house"}:
        (folder / "__init__.py").touch()
    return place / "house"


def found(place: Path, **files: str) -> set[str]:
    return set(closure.closure(package(place, **files), "house.room.root"))


ALWAYS = {"house", "house.room", "house.room.root"}


@pytest.mark.parametrize(
    ("root", "more"),
    [
        ("import json, sys", set()),
        ("from .other import value", {"house.room.other"}),
        ("from . import other", {"house.room.other"}),
        ("from . import value", set()),
        ("from ..far.away import value", {"house.far", "house.far.away"}),
        ("from ..far import away as close", {"house.far", "house.far.away"}),
        ("import house.far.away", {"house.far", "house.far.away"}),
        ("from house.far import value", {"house.far"}),
        ("def late():\n    from .other import value", {"house.room.other"}),
        ("class A:\n    def f(self):\n        if 1:\n            from . import other", {"house.room.other"}),
        ("try:\n    from . import other\nexcept ImportError:\n    from ..far import away",
         {"house.room.other", "house.far", "house.far.away"}),
        ("if TYPE_CHECKING:\n    from . import other\nelse:\n    from .. import far", {"house.far"}),
        ("if typing.TYPE_CHECKING:\n    from . import other", set()),
        ("importlib.import_module('.other', __name__)", set()),
    ],
)  # fmt: skip
def test_what_is_reached(tmp_path, root, more):
    assert found(tmp_path, room__root=root, room__other="", far__away="", far__not_asked="") == ALWAYS | more


def test_imports_of_imports_and_of_packages(tmp_path):
    files = {"room__root": "from .a import x", "room__a": "from .b import x", "room__b": "", "room__c": ""}
    assert found(tmp_path, **files) == ALWAYS | {"house.room.a", "house.room.b"}
    (tmp_path / "house" / "room" / "__init__.py").write_text("from . import c")
    assert "house.room.c" in closure.closure(tmp_path / "house", "house.room.root")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(closure.ClosureError, match=r"house\.room\.gone"):
        found(tmp_path, room__root="from .gone import value")
    with pytest.raises(closure.ClosureError, match="house.nothing"):
        closure.closure(tmp_path / "house", "house.nothing")


def test_foreign_packages_at_once_and_late(tmp_path):
    text = "import os.path, numpy.linalg\nfrom PIL import Image\ndef late():\n    import torch\n    import json"
    modules = closure.modules_in(package(tmp_path, room__root=text))
    imports = closure.imports_of("house.room.root", modules)
    assert (imports.foreign, imports.foreign_at_once) == ({"numpy", "PIL", "torch"}, {"numpy", "PIL"})
    assert imports.own == frozenset()


@pytest.fixture(scope="module")
def needed() -> dict[str, Path]:
    return closure.closure(ROOT / "clipq", build_wheels.RUNTIME_ROOT)


def test_the_runtime_names_nothing_heavy(needed):
    modules = closure.modules_in(ROOT / "clipq")
    asked = build_wheels.settings()["tool"]["clipq-runtime"]["dependencies"]
    names = [requirement.split(";")[0].strip() for requirement in asked]
    allowed = {IMPORT_NAMES.get(name, name) for name in names}
    for name in needed:
        imports = closure.imports_of(name, modules)
        assert not imports.foreign & HEAVY, f"{name} imports {imports.foreign & HEAVY}"
        missing = imports.foreign_at_once - allowed
        assert not missing, f"{name} imports {missing}, which clipq-runtime does not depend on"


IMPORT_ALL = """
import importlib, json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy!r} or (name.startswith("clipq.") and name not in {needed!r}):
            raise ImportError(f"{{name}} is not in clipq-runtime")

sys.meta_path.insert(0, Refuse())
sys.modules["clipq.plugins"] = None  # as it is where there is no such folder
for name in {needed!r}:
    importlib.import_module(name)
print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "clipq" and sys.modules[name]]))
"""


def test_every_module_of_the_runtime_is_imported_without_the_others(needed):
    code = IMPORT_ALL.format(heavy=HEAVY, needed=list(needed))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == set(needed)
