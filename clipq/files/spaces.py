"""The spaces of a model file: stated in its header, and for a file of clipq before 0.8 computed from it. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..arithmetic.schemes import Scheme
from ..errors import CheckpointError, ClipqError, unknown_name
from ..inputs.settings import PREPROCESSING, check_settings
from ..inputs.tokenizer_files import unpack_files
from ..spaces.architectures import architecture
from ..spaces.space import FORMAT, Space, is_sha256
from ..spaces.tensors import RawTensor, digest, of_tower, tower_of
from ..spaces.towers import TowerSpace, files_digest
from .header import Header

if TYPE_CHECKING:
    import numpy as np

    from ..module_like import ModuleLike

KEY = "spaces"
"""Of a header's configuration."""
TOKENIZER = "clipq.tokenizer"
"""The tensor that holds a tokenizer's files, compressed."""


def described_spaces(model: ModuleLike) -> dict[str, Any]:
    """What a header says of a model's spaces: for each tower the hashes that would take reading the tensors, and

    `id`: of the vectors of length 1 of wholly decoded pictures, or of texts, which is what `clipq embed` makes.
    Raises `CheckpointError` for a model that its configuration does not make, since a file has that alone.
    """
    if unlike := model.unlike_config():
        raise CheckpointError(
            f"the model cannot be saved: it is not what its configuration makes ({unlike}), so its file would be read "
            "back as another model. Build it with that configuration, or give the right one: clipq.Model(..., config=)."
        )
    towers = {tower: model.tower_space(tower) for tower in model.towers}
    return {"format": FORMAT, **{tower: _stated(one) for tower, one in towers.items()}}


def _stated(tower: TowerSpace) -> dict[str, str]:
    files = {} if tower.tokenizer_files is None else {"tokenizer": tower.tokenizer_files}
    return {"id": tower.space().id, "weights": tower.weights, **files}


def tower_space(header: Header, tower: str, read: bool = False) -> TowerSpace:
    """What is the same in all spaces of a tower of a file, equal to that of the model in it.

    The header is believed what it says of the tensors, which are not read; with `read` they are, and compared. Raises
    `UnknownNameError` for a tower that is not in the file, `CheckpointError` for a file that is not as written.
    """
    schemes = schemes_in(header)
    if tower not in schemes:
        raise unknown_name("tower", tower, schemes, "The file has no other.")
    stated = _stated_hashes(header, tower)
    hashes = stated[1:] if stated and not read else _hashes(header, schemes, tower)
    if stated and stated[1:] != hashes:
        raise CheckpointError(
            f"{header.path}: the tensors of the {tower} tower are not those that the header says its space is of. The "
            "file was altered, or replaced after it was loaded. Get it again, or load it again."
        )
    found = _described(header, schemes[tower], tower, hashes)
    if stated and found.space().id != stated[0]:
        raise CheckpointError(
            f"{header.path} says that its {tower} tower is of the space {stated[0]!r:.40}, and what it says of that "
            f"tower makes {found.space().id}. The file was altered, or written by another clipq: clipq.save it again."
        )
    return found


def _described(header: Header, scheme: Scheme, tower: str, hashes: tuple[str, str | None]) -> TowerSpace:
    config, (weights, files) = header.config, hashes
    host, towers = config["host"], tuple(config["recipe"]["towers"])
    try:
        described = architecture(host, config["config"], tower)
        if config["preprocessing"]:
            check_settings(config["preprocessing"], PREPROCESSING, "preprocessing")
        quantized = [name for name in config["recipe"]["modules"] if tower_of(host, name, towers) == tower]
    except (ClipqError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{header.path} is no {tower} tower of {host!r:.40}: {error}.") from error
    settings = config.get("tokenizer") if tower == "text" else None
    return TowerSpace(tower, weights, scheme, described, config["preprocessing"], settings, files, quantized)


def stated_spaces(header: Header) -> dict[str, Space]:
    """Of those towers of which the header says it; no tensor is read. Raises `CheckpointError`."""
    stated = [tower for tower in schemes_in(header) if _stated_hashes(header, tower)]
    return {tower: tower_space(header, tower).space() for tower in stated}


def schemes_in(header: Header) -> dict[str, Scheme]:
    """The scheme of each tower. Raises `CheckpointError`."""
    try:
        return {name: Scheme.from_dict(values) for name, values in header.config["recipe"]["towers"].items()}
    except (KeyError, TypeError, AttributeError, ClipqError) as error:
        raise CheckpointError(f"{header.path}: its recipe cannot be understood ({error}).") from error


def _stated_hashes(header: Header, tower: str) -> tuple[str, str, str | None] | None:
    """The id, and sha256 of the weights and of the tokenizer's files; None where the header does not say them.

    Raises `CheckpointError` where it says them in part.
    """
    stated = header.config.get(KEY)
    if not isinstance(stated, dict) or stated.get("format") != FORMAT or not isinstance(stated.get(tower), dict):
        return None
    found = tuple(stated[tower].get(key) for key in ("id", "weights", "tokenizer"))
    if not isinstance(found[0], str) or not is_sha256(found[1]) or is_sha256(found[2]) != _has_files(header, tower):
        raise CheckpointError(f"{header.path}: what it says of the space of its {tower} tower is not whole.")
    return found


def _has_files(header: Header, tower: str) -> bool:
    return tower == "text" and header.config.get("tokenizer") is not None and TOKENIZER in header.tensors


def _hashes(header: Header, schemes: dict[str, Scheme], tower: str) -> tuple[str, str | None]:
    weights = _weights(header, tuple(schemes), tower, schemes[tower].fallback)
    return weights, _tokenizer_files(header) if _has_files(header, tower) else None


def _weights(header: Header, towers: tuple[str, ...], tower: str, fallback: str) -> str:
    try:
        return digest(of_tower(_raw(header), header.config["host"], towers, tower), fallback)
    except KeyError as error:
        raise CheckpointError(f"{header.path}: its host {error} is none that this version knows.") from error


def _raw(header: Header) -> Iterator[RawTensor]:
    for name, entry in header.tensors.items():
        if name != TOKENIZER:
            yield RawTensor(name, entry["dtype"], tuple(entry["shape"]), lambda entry=entry: _bytes(header, entry))


def _bytes(header: Header, entry: dict[str, Any]) -> np.ndarray:
    import numpy as np

    start, end = entry["data_offsets"]
    try:
        return np.fromfile(header.path, np.uint8, end - start, offset=header.data_start + start)
    except OSError as error:
        raise CheckpointError(f"{header.path} cannot be read: {error.strerror}.") from error


def _tokenizer_files(header: Header) -> str | None:
    return files_digest(unpack_files(_bytes(header, header.tensors[TOKENIZER]).tobytes()))
