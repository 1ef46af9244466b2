"""The zoo: which models clipq knows by name, where their files are, and how to get them.

The registry is data, `zoo/models.toml`; this module reads it strictly and needs neither torch nor open_clip.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ClipqError, DownloadError, unknown_name
from ..resources import default_cache_dir, resource
from ..version import VERSION
from . import hub

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class RegistryError(ClipqError, ValueError):
    """A registry file that does not say what it has to."""


@dataclass(frozen=True)
class Artefact:
    """One file of one model in one precision: on the hub (`repo`, `filename`, `revision`) or embedded (`path`)."""

    precision: str
    """The name of the precision that the file is in, such as `"int8"`."""
    sha256: str
    """Of the file; empty while there is none."""
    size: int
    """In bytes; 0 while there is none."""
    path: str = ""
    """Of a file that ships with clipq, such as `zoo/clipq-tiny/clipq-tiny-int8.safetensors`."""
    repo: str = ""
    filename: str = ""
    revision: str = ""

    @property
    def embedded(self) -> bool:
        """Whether the file ships with clipq."""
        return bool(self.path)

    @property
    def published(self) -> bool:
        """Whether `fetch` can get it. If not, the model has to be built from its base weights."""
        return self.embedded or bool(self.sha256)


@dataclass(frozen=True)
class Entry:
    """One model of the zoo. `arch` and `tag` are open_clip's names (of an embedded model: clipq's own)."""

    arch: str
    tag: str
    base: str
    """The hub repository of the base weights; empty if clipq's own training made them."""
    licence: str
    """Of the weights, as its owner publishes them (an SPDX or hub identifier); the quantized files inherit it."""
    quick_gelu: bool
    """Whether the weights were trained with `x * sigmoid(1.702 x)`; pinned here, as file names do not say it."""
    artefacts: tuple[Artefact, ...]
    top1: float | None = None
    """Published zero-shot top-1 of the base weights on ImageNet-1k, in percent, for reference."""
    needs_torch: str = ""
    """The tower (`"image"` or `"text"`) of which torch computes what stands before or after the blocks; empty: none."""

    @property
    def name(self) -> str:
        """`"ViT-B-32/openai"`: the full name."""
        return f"{self.arch}/{self.tag}"

    @property
    def names(self) -> tuple[str, ...]:
        """What else the model answers to: `"ViT-B-32-openai"`, as in hub repositories and file names."""
        return (self.name, f"{self.arch}-{self.tag}")

    @property
    def embedded(self) -> bool:
        """Whether the model ships with clipq and needs no network."""
        return any(artefact.embedded for artefact in self.artefacts)


def entries() -> list[Entry]:
    """All models of the zoo, in the registry's order. Raises `RegistryError` if the registry is not as it should be."""
    return list(_registry())


def list_models() -> list[str]:
    """The full names of all models of the zoo, such as `"ViT-B-32/openai"`; `clipq.load` takes each of them."""
    return [entry.name for entry in entries()]


def find(name: str) -> Entry:
    """The entry called `name`: `"ViT-B-32/openai"`, `"ViT-B-32-openai"`, or `"ViT-B-32"` for its first tag.

    Raises `UnknownNameError` with the nearest match.
    """
    found = _by_name().get(name)
    if found is None:
        natural = [*list_models(), *(entry.arch for entry in entries())]
        raise unknown_name("model", name, dict.fromkeys(natural), "`clipq list` shows the zoo.")
    return found


def is_known(name: str) -> bool:
    """Whether `find(name)` would succeed."""
    return name in _by_name()


def artefact(entry: Entry, precision: str) -> Artefact | None:
    """The entry's file in this precision, or None. It may be planned only: see `Artefact.published`."""
    return next((found for found in entry.artefacts if found.precision == precision), None)


def fetch(artefact: Artefact, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The local path of an artefact: of the embedded file, or of the download in the hub cache (`cache_dir`).

    Raises `DownloadError` if it is not published, cannot be downloaded, or does not have the registry's sha256.
    """
    if artefact.embedded:
        path = resource(*artefact.path.split("/"))
        if artefact.sha256 and (got := hub.file_sha256(path)) != artefact.sha256:
            raise DownloadError(f"{path} was altered: sha256 {got}, not {artefact.sha256}. Reinstall clipq.")
        return path
    if not artefact.published:
        raise DownloadError(
            f"{artefact.filename} of {artefact.repo} is not published yet; clipq.load builds it from the base weights."
        )
    return hub.download(
        artefact.repo,
        artefact.filename,
        revision=artefact.revision,
        sha256=artefact.sha256,
        cache_dir=cache_dir,
    )


def built_path(entry: Entry, precision: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where a file that is built on this machine belongs, for one model and one precision (any text that names it).

    Files built by another version of clipq are not used again: its numbers may differ.
    """
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    return root / "built" / VERSION / f"{_slug(entry.arch)}-{_slug(entry.tag)}" / f"{_slug(precision)}.safetensors"


def _slug(text: str) -> str:
    """`text` as a file name: itself where that is possible, otherwise shortened, with a hash to tell it from others."""
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", text).lstrip(".")[:60]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@cache
def _registry() -> tuple[Entry, ...]:
    return parse(resource("zoo", "models.toml").read_text(encoding="utf-8"), "zoo/models.toml")


@cache
def _by_name() -> dict[str, Entry]:
    names: dict[str, Entry] = {}
    for entry in _registry():
        names.setdefault(entry.arch, entry)
        for name in entry.names:
            names.setdefault(name, entry)
    return names


def parse(text: str, source: str) -> tuple[Entry, ...]:
    """The entries of a registry in TOML; `source` names it in errors. Raises `RegistryError`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"{source} is not TOML: {error}") from None
    if list(data) != ["models"] or not isinstance(data["models"], list):
        raise RegistryError(f"{source} has to be one list, [[models]]; it has {', '.join(data) or 'nothing'}.")
    found = tuple(_entry(table, f"{source}, model {number}") for number, table in enumerate(data["models"], 1))
    for number, entry in enumerate(found):
        if entry.name in [other.name for other in found[:number]]:
            raise RegistryError(f"{source} has {entry.name} twice.")
    return found


def _entry(table: Any, where: str) -> Entry:
    label = f"{where} ({table.get('arch')}/{table.get('tag')})" if isinstance(table, dict) else where
    values = _checked(Entry, table, label)
    files = [_artefact(item, f"{label}, artefact {number}") for number, item in enumerate(values["artefacts"], 1)]
    if len({file.precision for file in files}) < len(files):
        raise RegistryError(f"{label} has two artefacts of the same precision.")
    return Entry(**{**values, "artefacts": tuple(files)})


def _artefact(table: Any, where: str) -> Artefact:
    found = Artefact(**_checked(Artefact, table, where))
    place = (found.repo, found.filename, found.revision)
    if bool(found.path) == any(place) or (not found.path and not all(place)):
        raise RegistryError(f"{where} needs either a path, or a repo, a filename and a revision.")
    if found.sha256 and not re.fullmatch("[0-9a-f]{64}", found.sha256):
        raise RegistryError(f"{where}: sha256 is {found.sha256!r}, not 64 hexadecimal digits (lower case) or empty.")
    return found


_TYPES = {
    "str": (str, "a text"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
    "float | None": (float, "a number with a decimal point"),
    "tuple[Artefact, ...]": (list, "a list of tables"),
}
"""How the annotation of a field is written in TOML."""


def _checked(kind: type, table: Any, where: str) -> Mapping[str, Any]:
    """`table` itself, if its keys and types are those of the dataclass `kind`."""
    if not isinstance(table, dict):
        raise RegistryError(f"{where} is not a table but {table!r}.")
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(set(table) - set(known)):
        raise RegistryError(f"{where}: {unknown_name('key', unknown[0], known)}")
    if missing := [name for name, field in known.items() if name not in table and field.default is MISSING]:
        raise RegistryError(f"{where} lacks {', '.join(missing)}.")
    for name, value in table.items():
        expected, words = _TYPES[known[name].type]
        if type(value) is not expected:
            raise RegistryError(f"{where}: {name} is {value!r}, not {words}.")
    return table
