"""The rooms: each says what lives there, nothing goes in circles, tests and scripts lie where they belong."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "clipq"
ROOMS = sorted({path.parent for path in PACKAGE.rglob("*.py")})
NO_ROOMS = {"helpers", "house", "scripts", "clients", "data"}
"""Folders of tests/ that are about no room of clipq."""


def folders_in(place: Path) -> set[str]:
    """Names of the folders of `place` that hold files; what an interpreter or an editor left behind does not count."""
    files = [path.relative_to(place) for path in place.rglob("*") if path.is_file()]
    return {path.parts[0] for path in files if len(path.parts) > 1 and not path.parts[0].startswith((".", "__"))}


def sentences_of(docstring: str | None) -> int:
    return len(re.findall(r"[.!?](?=\s|$)", docstring or ""))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.relative_to(ROOT).as_posix())
def test_a_room_says_what_lives_there_and_what_never_does(room):
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    assert sentences_of(docstring) >= 2, f"{room.name}/__init__.py: what lives here, and what never does?"


def modules_in(package: Path) -> dict[str, Path]:
    """Every module by its dotted name, a folder's `__init__` by the folder's."""
    names = {path: path.relative_to(package.parent).with_suffix("").parts for path in package.rglob("*.py")}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in names.items()}


def imports_of(name: str, modules: dict[str, Path]) -> set[str]:
    """Those of `modules` that a module imports, wherever in the file; a folder for names of its `__init__`."""
    here = name.split(".") if modules[name].name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(modules[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            source = ".".join([*start, *filter(None, [node.module])])
            inside = {one.name: f"{source}.{one.name}" for one in node.names}
            found |= {path if path in modules else source for path in inside.values()}
    return found & modules.keys()


def cycle_in(package: Path) -> list[str] | None:
    """Modules that import each other in a circle, if there are any. What a type checker alone imports counts too."""
    modules = modules_in(package)
    graph = {name: imports_of(name, modules) for name in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_no_modules_import_each_other_in_a_circle():
    assert cycle_in(PACKAGE) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("from .other import a", "from .one import b"),
        ("from . import other", "def late():\n    from .one import b"),
        ("import house.room.other", "from house.room import one"),
        ("from ..room.other import a", "from . import one as first"),
        ("from . import value", ""),
    ],
)
def test_the_walk_sees_circles(tmp_path, one, other):
    """The walk above would pass on anything if it found nothing."""
    room = tmp_path / "house" / "room"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text("from .one import value" if not other else "")
    (room / "one.py").write_text(one)
    (room / "other.py").write_text(other)
    assert "house.room.one" in cycle_in(tmp_path / "house")
    (room / "one.py").write_text("import sys, json")
    assert cycle_in(tmp_path / "house") is None


def test_tests_lie_in_the_folder_of_the_room_or_module_they_are_about():
    rooms = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in PACKAGE.rglob("*.py")}
    strangers = folders_in(ROOT / "tests") - rooms - NO_ROOMS
    assert not strangers, f"tests/ has folders {sorted(strangers)}, which are no room or module of clipq"


def test_scripts_train_measure_or_build():
    assert folders_in(ROOT / "scripts") == {"training", "measuring", "building"}
    loose = [path.name for path in (ROOT / "scripts").iterdir() if path.is_file()]
    assert not loose, "a script lies in the folder that says what it is for"
