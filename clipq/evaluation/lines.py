"""A line of a result file, which may come from anybody: what it must look like before it is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import ResultError

_KINDS: dict[type, tuple[str, ...]] = {
    str: ("task", "date", "answers_file"),
    int: ("task_version", "n", "n_classes", "limit", "format"),
    float: ("seconds", "images_per_second"),
    dict: ("model", "data", "metrics", "broken", "environment", "baseline", "comparison"),
    list: ("towers",),
}
_OPTIONAL = ("limit", "images_per_second", "answers_file", "baseline", "comparison", "towers")
_IN_WORDS = {str: "a text", int: "a whole number", float: "a number", dict: "a table", list: "a list"}


def checked_line(line: str, version: int, names: Sequence[str]) -> dict[str, Any]:
    """The fields of a result line of format `version`, which are exactly `names`, each of its kind.

    Raises `ResultError` for anything else: no JSON, NaN, endless nesting, a field missing, unknown or of another kind.
    """
    table = _parsed(line)
    known = table.get("format")
    if known != version:
        raise ResultError(f"a result of format {known!r}; this clipq reads format {version}. Update clipq.")
    if wrong := set(names) ^ set(table):
        raise ResultError(f"a result with missing or unknown fields: {', '.join(sorted(wrong))}; evaluate again")
    for kind, fields in _KINDS.items():
        for field in fields:
            _check(table[field], kind, field)
    for field in ("model", "baseline"):
        if table[field] is not None:
            _check_model(table[field], field)
    return table


def _parsed(line: str) -> dict[str, Any]:
    try:
        table = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"this is no clipq result: {line[:80]!r} ({error})") from error
    if not isinstance(table, dict) or "format" not in table:
        raise ResultError(f"this is no clipq result: {line[:80]!r}; `clipq eval -o FILE` writes them")
    return table


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _check(value: object, kind: type, field: str) -> None:
    if value is None and field in _OPTIONAL:
        return
    kinds = (int, float) if kind is float else (kind,)
    if type(value) not in kinds:  # a bool is an int, and no number
        raise ResultError(f"the field {field!r} of a result must be {_IN_WORDS[kind]}; it is {_short(value)}")


def _check_model(model: dict[str, Any], field: str) -> None:
    precision = model.get("precision")
    if not isinstance(model.get("name"), str) or not isinstance(precision, dict) or not precision:
        raise ResultError(f"the field {field!r} of a result must name a model and its precision; it is {_short(model)}")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:80] + "..."
