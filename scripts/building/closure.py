"""Which modules of a package one of them needs: what its import statements reach, read from the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class ClosureError(Exception):
    """An import of a module that the package does not have; the message is one line."""


@dataclass(frozen=True)
class Imports:
    """What one module imports, wherever in its file: modules by their dotted names."""

    own: frozenset[str]
    """Modules of the package."""
    foreign: frozenset[str]
    """Other packages by their first name, but for those of the standard library."""
    foreign_at_once: frozenset[str]
    """Those of `foreign` that are imported with the module, and not by one of its functions."""


def modules_in(package: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name; a folder's `__init__` has the folder's."""
    named = {path: path.relative_to(package.parent).with_suffix("").parts for path in sorted(package.rglob("*.py"))}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in named.items()}


def closure(package: Path, root: str) -> dict[str, Path]:
    """The modules that `root` needs, itself among them (of a folder: all of it), and the packages that they lie in.

    Imports inside functions count, those for a type checker alone do not. A module that is named by a string
    (`importlib.import_module`) is not seen: that is how the package's `__init__` names what only the whole package has.
    Raises `ClosureError` for a root or an import that is not there.
    """
    modules = modules_in(package)
    if root not in modules:
        raise ClosureError(f"there is no module {root} in {package}")
    needed, waiting = set(), [name for name in modules if name == root or name.startswith(f"{root}.")]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        waiting += imports_of(name, modules).own
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return {name: modules[name] for name in sorted(needed)}


def imports_of(name: str, modules: dict[str, Path]) -> Imports:
    """What the module called `name` imports."""
    tree = ast.parse(modules[name].read_text(encoding="utf-8"))
    package = name if modules[name].name == "__init__.py" else name.rpartition(".")[0]
    found: dict[bool, set[str]] = {False: set(), True: set()}
    for node, is_late in _import_statements(tree.body, False):
        found[is_late] |= set(_targets(node, package, modules))
    top = name.partition(".")[0]
    foreign = {late: {one.partition(".")[0] for one in ones} - {top} for late, ones in found.items()}
    third = {late: frozenset(ones - sys.stdlib_module_names) for late, ones in foreign.items()}
    own = {one for ones in found.values() for one in ones if one.partition(".")[0] == top}
    return Imports(frozenset(own), third[False] | third[True], third[False])


def _import_statements(body: list[ast.stmt], is_late: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import below `body`, and whether it stands in a function."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, is_late
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _import_statements(node.orelse, is_late)
        else:
            inner = [one for one in ast.iter_child_nodes(node) if not isinstance(one, ast.expr)]
            in_function = is_late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _import_statements(inner, in_function)


def _targets(node: ast.Import | ast.ImportFrom, package: str, modules: dict[str, Path]) -> Iterator[str]:
    """The modules that a statement in `package` names. `from room import name` is a module, or the room for a value."""
    if isinstance(node, ast.Import):
        yield from (_checked(one.name, modules) for one in node.names)
        return
    above = package.split(".")
    start = above[: len(above) - node.level + 1] if node.level else []
    source = ".".join([*start, *filter(None, [node.module])])
    for one in node.names:
        inside = f"{source}.{one.name}"
        yield inside if inside in modules else _checked(source, modules)


def _checked(name: str, modules: dict[str, Path]) -> str:
    if name not in modules and name.partition(".")[0] in modules:
        raise ClosureError(f"{name} is imported and there is no such module")
    return name
