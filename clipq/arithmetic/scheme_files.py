"""Schemes as TOML files, written by hand or by a search.

    name = "mixed"
    precision = "int8"                # a name of `precisions.PRECISIONS`; or tables [weights], [activations]
    [[modules]]                       # the first pattern that a module's name matches counts
    pattern = "visual.transformer.resblocks.0.*"
    precision = "fp16"

With tables [image] and [text] around all of it a file holds a scheme for each tower. What stays float in a tower has
one precision, its `fallback`; where a file does not state that, it is the one that its float modules are given.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..errors import SchemeError, unknown_name
from ..resources import output_path
from .precisions import PRECISIONS, TOWERS, Precisions, resolve
from .schemes import Scheme
from .specs import QuantSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SPECS = ("weights", "activations", "embeddings")
_SPEC_KEYS = tuple(one.name for one in fields(QuantSpec))
_SAID = ("fallback", "attention")
_OWN = ("name", "precision", *_SAID, *_SPECS)
_KEYS = (*_OWN, "steps", "modules")
_MODULE_KEYS = ("pattern", *_OWN)
_MOST_BYTES = 1 << 20


def read_schemes(path: str | os.PathLike[str]) -> Precisions:
    """What `clipq.quantize` takes as precision: the file's `Scheme`, or one for each tower that it names.

    Raises `SchemeError` naming the file and the place, for whatever is not exactly as the module's docstring says.
    """
    values = _parsed(Path(path))
    try:
        if set(values) & set(TOWERS):
            _check_keys(values, TOWERS, "of a file with a table for each tower")
            return {tower: _scheme(_table(one, tower), tower, tower) for tower, one in values.items()}
        return _scheme(values, "the file", Path(path).stem)
    except (SchemeError, ValueError) as error:
        raise SchemeError(f"{os.fspath(path)}: {error}") from error


def write_schemes(schemes: Scheme | Mapping[str, Scheme], path: str | os.PathLike[str]) -> None:
    """Write a scheme, or one for each tower, as `read_schemes` gives it back. Raises `OutputError`, `SchemeError`."""
    if isinstance(schemes, Scheme):
        lines = list(_lines(schemes, ""))
    else:
        lines = [line for tower, scheme in schemes.items() for line in ("", f"[{tower}]", *_lines(scheme, f"{tower}."))]
    try:
        content = "\n".join(lines).strip().encode() + b"\n"
    except UnicodeEncodeError as error:
        raise SchemeError(f"a name or pattern cannot be written as UTF-8: {error}.") from error
    with output_path(path) as temporary:
        temporary.write_bytes(content)


def read_scheme(path: str | os.PathLike[str]) -> Scheme:
    """The one scheme of a file. Raises `SchemeError` for a file with a table for each tower."""
    found = read_schemes(path)
    if not isinstance(found, Scheme):
        raise SchemeError(
            f"{os.fspath(path)} has a scheme for each of {', '.join(found)}; read it with clipq.read_schemes(path)."
        )
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise SchemeError(f"{path} is larger than {_MOST_BYTES} bytes, which no scheme is.")
        return tomllib.loads(raw.decode("utf-8"))
    except OSError as error:
        raise SchemeError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, SchemeError):
            raise
        raise SchemeError(f"{path} is not valid TOML: {error}.") from error


def _scheme(values: Mapping[str, Any], where: str, name: str) -> Scheme:
    _check_keys(values, _KEYS, f"of {where}")
    base = _own(values, where, name)
    modules = values.get("modules", [])
    if not isinstance(modules, list):
        raise SchemeError(f"modules of {where} is {modules!r}; give [[modules]] tables.")
    exceptions = tuple(
        _exception(_table(one, "modules"), f"[[modules]] {i + 1} of {where}") for i, one in enumerate(modules)
    )
    if base.is_float and any(not one.is_float for _, one in exceptions):
        raise SchemeError(
            f"{where} is {base.name!r}, which stays float, and some of its modules are not; give the precision of most "
            "modules as that of the tower, and a float precision to those that stay float."
        )
    steps = values.get("steps", list(base.steps))
    scheme = replace(base, steps=tuple(steps) if isinstance(steps, list) else steps, exceptions=exceptions)
    return scheme if "fallback" in values or base.is_float else replace(scheme, fallback=_fallback(scheme, where))


def _fallback(scheme: Scheme, where: str) -> str:
    floats = sorted({one.fallback for _, one in scheme.exceptions if one.is_float})
    if len(floats) > 1:
        raise SchemeError(
            f"modules of {where} are {' and '.join(floats)}, but what stays float in a tower has one precision; "
            "state it as fallback."
        )
    return floats[0] if floats else scheme.fallback


def _exception(values: Mapping[str, Any], where: str) -> tuple[str, Scheme]:
    _check_keys(values, _MODULE_KEYS, f"of {where}")
    if not isinstance(values.get("pattern"), str):
        raise SchemeError(f'{where} has no pattern; give one of modules\' names, such as "visual.*.resblocks.0.*".')
    own = _own(values, where, "")
    if own.steps:
        raise SchemeError(
            f"{where} is {own.name!r}, whose steps are chosen for a whole tower; state them there, and here a plain "
            "precision."
        )
    return values["pattern"], own


def _own(values: Mapping[str, Any], where: str, name: str) -> Scheme:
    specs = {part: _spec(_table(values[part], part), f"{part} of {where}") for part in _SPECS if part in values}
    if ("precision" in values) == bool(specs):
        raise SchemeError(f"{where} needs a precision, or else [weights] with [activations] if those are quantized.")
    if specs:
        found = Scheme(values.get("name", name), **{part: specs.get(part) for part in _SPECS})
    else:
        found = resolve(values["precision"])
        found = replace(found, name=values.get("name", found.name))
    return replace(found, **{key: values[key] for key in _SAID if key in values})


def _spec(values: Mapping[str, Any], where: str) -> QuantSpec:
    _check_keys(values, _SPEC_KEYS, f"of {where}")
    return QuantSpec(**values)


def _table(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SchemeError(f"{what} is {value!r}; give a table.")
    return value


def _check_keys(values: Mapping[str, Any], allowed: Iterable[str], what: str) -> None:
    for key in values:
        if key not in allowed:
            raise unknown_name(f"key {what}", key, allowed)


def _lines(scheme: Scheme, prefix: str) -> Iterator[str]:
    """The scheme as TOML; `prefix`: of the tables' names."""
    yield from _own_lines(replace(scheme, exceptions=()), prefix, bool(scheme.exceptions))
    for pattern, one in scheme.exceptions:
        yield from ("", f"[[{prefix}modules]]", f"pattern = {_value(pattern)}")
        yield from _own_lines(one, f"{prefix}modules.", False)


def _own_lines(scheme: Scheme, prefix: str, has_modules: bool) -> Iterator[str]:
    alike = next((one for one in PRECISIONS.values() if _same(one, scheme)), None)
    if alike is None or scheme.name != alike.name or has_modules:
        yield f"name = {_value(scheme.name)}"
    if alike is not None:
        yield f"precision = {_value(alike.name)}"
    if alike is None or scheme.fallback != alike.fallback or has_modules:
        yield f"fallback = {_value(scheme.fallback)}"
    if scheme.attention != (alike.attention if alike else "float"):
        yield f"attention = {_value(scheme.attention)}"
    if scheme.steps != (alike.steps if alike else ()):
        yield f"steps = {_value(list(scheme.steps))}"
    if alike is not None:
        return
    for part in _SPECS:
        spec = getattr(scheme, part)
        if spec is not None:
            yield from ("", f"[{prefix}{part}]")
            yield from (f"{key} = {_value(value)}" for key, value in spec.to_dict().items() if value is not None)


def _same(precision: Scheme, scheme: Scheme) -> bool:
    """Whether they differ in no more than what is written beside a precision's name."""
    changed = {"name": scheme.name, "steps": scheme.steps, **{key: getattr(scheme, key) for key in _SAID}}
    return precision.steps in ((), scheme.steps) and replace(precision, **changed) == scheme


def _value(value: Any) -> str:
    """A string, whole number, switch or list of them, as TOML."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
