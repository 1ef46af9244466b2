"""`Space`: everything that decides where a vector lies, and a short hash of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import SpaceError

FORMAT = 1
COMPONENTS = (
    "weights", "scheme", "architecture", "tower", "preprocessing", "tokenizer", "decode", "normalized",
)  # fmt: skip
"""In the order in which differences are told."""

_ID = 16  # hexadecimal digits: 64 bits
_SHOWN = 2  # differences that a message names of a component
_LONGEST = 40  # characters of a value in a message
_SHA256 = re.compile("[0-9a-f]{64}")
_MISSING = object()


@dataclass(frozen=True, eq=False)
class Space:
    """A vector space, by its `components`, JSON values: two vectors may be compared if all of them are the same.

    weights: sha256 of the tensors that the tower's vectors depend on, as they are stored. scheme: how they are
    quantized and multiplied. architecture: the host and the settings of the tower. preprocessing (of pictures),
    tokenizer (of texts): settings, None without. decode: of JPEGs. normalized: whether vectors are of length 1.
    """

    components: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits: the beginning of the sha256 of the components as JSON."""
        return digest_of({"format": FORMAT, **self.components})[:_ID]

    @property
    def tower(self) -> str:
        return self.components["tower"]

    def described(self) -> dict[str, Any]:
        """What an output says of itself: `space_id` and `space`, JSON values."""
        return {"space_id": self.id, "space": dict(self.components)}

    def differences(self, other: Space) -> list[str]:
        """What differs, in words, such as `scheme.attention: "float" and "int8"`; none of it left out."""
        return [
            f"{name}: {_said(one)} and {_said(two)}"
            for key in COMPONENTS
            for name, one, two in _unequal(key, self.components[key], other.components[key])
        ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Space({self.id!r}, tower={self.tower!r})"


def space_in(about: Mapping[str, Any], origin: str) -> Space | None:
    """The space that an output called `origin` says it is of; None where it says nothing (clipq before 0.8).

    Raises `SpaceError` for components that are not those of their id: altered, or of a newer clipq.
    """
    if "space_id" not in about and "space" not in about:
        return None
    found = about.get("space")
    try:
        right = (
            isinstance(found, Mapping) and set(found) == set(COMPONENTS) and Space(found).id == about.get("space_id")
        )
    except RecursionError:
        right = False
    if not right:
        raise SpaceError(
            f"{origin} says that it is of the space {about.get('space_id')!r:.40}, and its components are not those of "
            "that id: they were altered, or written by a newer clipq. Upgrade (pip install -U clipq), or embed again."
        )
    return Space(found)


def check_equal(one: Space, other: Space, names: tuple[str, str]) -> None:
    """Raise `SpaceError`, naming what differs, unless both are the same space. `names`: what they are of."""
    if one == other:
        return
    raise SpaceError(
        f"{names[0]} ({one.id}) and {names[1]} ({other.id}) are not of the same vector space. They differ in "
        f"{_summary(one, other)}. Embed both with the same model and settings, or measure with `clipq "
        "drift` whether the vectors may live side by side."
    )


def _summary(one: Space, other: Space) -> str:
    """What differs, a few words for each component; of two towers, which they are."""
    if one.tower != other.tower:
        return f"tower: {_said(one.tower)} and {_said(other.tower)}"
    found: dict[str, list[str]] = {}
    for line in one.differences(other):
        found.setdefault(line.partition(":")[0].partition(".")[0], []).append(line)
    return "; ".join(
        "; ".join(lines[:_SHOWN]) + (f" (and {len(lines) - _SHOWN} more of it)" if len(lines) > _SHOWN else "")
        for lines in found.values()
    )


def plain(value: Any) -> Any:
    """`value` as JSON gives it back: tuples are lists, keys texts; what JSON does not know is its text."""
    return json.loads(json.dumps(value, default=str))


def is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def digest_of(value: Any) -> str:
    """sha256 (hex) of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _unequal(name: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from _unequal(f"{name}.{key}", one.get(key, _MISSING), other.get(key, _MISSING))
    elif one is _MISSING or other is _MISSING or one != other:
        yield name, one, other


def _said(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    if is_sha256(value):
        return f"{value[:8]}.."
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
