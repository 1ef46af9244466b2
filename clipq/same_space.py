"""`space_of` and `check_same_space`: of models, their files, and whatever `clipq embed` wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError, SpaceError, unknown_name
from .inputs.scaling import DECODE
from .spaces.space import Space, check_equal, space_in
from .spaces.towers import TowerSpace

_EMBED_AGAIN = (
    "it was made by clipq before 0.8 or by something else. Make it again with `clipq embed`, or measure with `clipq "
    "drift` whether a model's vectors may live beside it."
)


@dataclass(frozen=True)
class _Side:
    """What is compared: the space of an output, or the towers of a model. `name`: what messages call it."""

    name: str
    space: Space | None = None
    towers: tuple[str, ...] = ()
    find: Callable[[str], TowerSpace | _AsItMakes] | None = None

    def like(self, other: Space) -> Space:
        """The space of this model's vectors that are made as those of `other` were."""
        if other.tower not in self.towers:
            raise SpaceError(f"{self.name} has no {other.tower} tower, only {' and '.join(self.towers)}.")
        return self.find(other.tower).space(other.components["decode"] or DECODE, other.components["normalized"])


@dataclass(frozen=True)
class _AsItMakes:
    """A tower of which there is but one space, whatever is asked for."""

    only: Space

    def space(self, decode: str = DECODE, normalized: bool = True) -> Space:
        return self.only


def space_of(thing: Any, tower: str | None = None, *, decode: str = DECODE, normalized: bool = True) -> Space:
    """The vector space of a model's tower, or of embeddings; its `id` is 16 hexadecimal digits.

    thing: a `clipq.Model`, a model of `clipq.runtime`, an `Embedder`, a host module, the path of a file or folder that
    `clipq.save` wrote; or `Embeddings`, or the path of a file or folder that `clipq embed` wrote, which say what they
    are of. tower: "image" or "text"; left out, the only one. decode: how JPEGs are decoded; normalized: whether vectors
    are of length 1; an embedder knows both. Kernels, device, threads and batch size are no part of a space. The weights
    of a model are hashed, about a second for a GB, and again only after they changed; of a model's file the header
    alone is read, and believed what it says of its tensors: `clipq.load` and `clipq.runtime.load` look at these.
    Raises `UnknownNameError` for a tower that is not there, `SpaceError` for embeddings that do not say their space.
    """
    side = _side_of(thing)
    if side.space is not None:
        if tower not in (None, side.space.tower):
            raise SpaceError(f"{side.name} is of the {side.space.tower} tower, not of {tower!r}.")
        return side.space
    return side.find(_chosen(side, tower)).space(decode, normalized)


def _chosen(side: _Side, tower: str | None) -> str:
    if tower is None and len(side.towers) == 1:
        return side.towers[0]
    if tower not in side.towers:
        raise unknown_name("tower", tower, side.towers, f"Say of which tower of {side.name}.")
    return tower


def check_same_space(a: Any, b: Any, tower: str | None = None) -> None:
    """Raise `SpaceError`, naming what differs, unless the vectors of `a` and of `b` may be compared with each other.

    a, b: what `space_of` takes. Embeddings are compared with the model's vectors that are made as they were (tower,
    decoding, length); two models in all towers that both have, or in `tower` alone. The dtype that vectors are kept as
    is no part of their space: codes are told by their `ranges`.
    """
    one, two = _side_of(a), _side_of(b)
    names = one.name, two.name
    if one.space is not None or two.space is not None:
        check_equal(one.space or one.like(two.space), two.space or two.like(one.space), names)
        return
    shared = [name for name in one.towers if name in two.towers and tower in (None, name)]
    if not shared:
        raise SpaceError(f"{names[0]} and {names[1]} have no {tower or 'common'} tower to compare.")
    for name in shared:
        check_equal(*_alike(one.find(name), two.find(name)), names)


def _alike(one: TowerSpace | _AsItMakes, two: TowerSpace | _AsItMakes) -> tuple[Space, Space]:
    """Their spaces of vectors made as that side makes them which makes but one kind."""
    fixed = next((side.only for side in (one, two) if isinstance(side, _AsItMakes)), None)
    asked = () if fixed is None else (fixed.components["decode"] or DECODE, fixed.components["normalized"])
    return one.space(*asked), two.space(*asked)


def _side_of(thing: Any) -> _Side:
    if isinstance(thing, Space):
        return _Side(f"the space of {thing.tower}s", thing)
    if isinstance(thing, str | os.PathLike):
        path = Path(thing)
        return _model_file(path) if _holds_a_model(path) else _stated(_about(path), str(path))
    if hasattr(thing, "tower_space"):  # a clipq.Model, or one of clipq.runtime
        return _Side(_name_of(thing), towers=tuple(thing.towers), find=thing.tower_space)
    if hasattr(thing, "space_id"):  # an Embedder, which knows how it decodes, and the length of what it makes
        both = (tower for tower in ("image", "text") if tower in thing.encoding(tower).towers)
        towers = tuple(both) if thing.tower is None else (thing.tower,)
        return _Side("the embedder", towers=towers, find=lambda tower: _AsItMakes(thing.space(tower)))
    if isinstance(about := getattr(thing, "about", None), Mapping):  # Embeddings
        return _stated(about, "the embeddings")
    from .models import Model

    return _side_of(Model(thing))


def _name_of(model: Any) -> str:
    source = getattr(model, "source", None) or getattr(model, "config", {}).get("source") or {}
    name = source.get("name") or source.get("arch")
    return f"the model {name}" if name else "the model"


def _stated(about: Mapping[str, Any], name: str) -> _Side:
    space = space_in(about, name)
    if space is None:
        raise SpaceError(f"{name} does not say which vector space it is of: {_EMBED_AGAIN}")
    return _Side(name, space)


def _about(path: Path) -> dict[str, Any]:
    from .matrices.reading import read_about

    if not path.exists():
        raise DataError(
            f"{path} does not exist; give a file or folder that clipq.save or `clipq embed` wrote, or a model: "
            "clipq.load(NAME)."
        )
    return read_about(path)


def _holds_a_model(path: Path) -> bool:
    from .files.header import has_mark, model_file

    file = model_file(path) if path.is_dir() else path
    return file.is_file() and file.suffix == ".safetensors" and has_mark(file)


def _model_file(path: Path) -> _Side:
    from .files.header import read_header
    from .files.spaces import schemes_in, tower_space

    header = read_header(path)
    return _Side(str(path), towers=tuple(schemes_in(header)), find=lambda name: tower_space(header, name))
