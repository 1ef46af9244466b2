"""The spaces of a model file: stated in its header, and for a file of clipq before 0.8 computed from it. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..arithmetic.schemes import Scheme
from ..errors import CheckpointError, ClipqError, unknown_name
from ..inputs.settings import PREPROCESSING, check_settings
from ..inputs.tokenizer_files import unpack_files
from ..spaces.space import FORMAT
from ..spaces.tensors import RawTensor, digest, of_tower
from ..spaces.towers import TowerSpace, architecture, files_digest
from .header import Header

if TYPE_CHECKING:
    import numpy as np

    from ..module_like import ModuleLike

KEY = "spaces"
"""Of a header's configuration."""
TOKENIZER = "clipq.tokenizer"
"""The tensor that holds a tokenizer's files, compressed."""
_SHA256 = re.compile("[0-9a-f]{64}")


def described_spaces(model: ModuleLike) -> dict[str, Any]:
    """What a header says of a model's spaces: for each tower the hashes that would take reading the tensors, and

    `id`: of the vectors of length 1 of wholly decoded pictures, or of texts, which is what `clipq embed` makes.
    """
    towers = {tower: model.tower_space(tower) for tower in model.towers}
    return {"format": FORMAT, **{tower: _stated(one) for tower, one in towers.items()}}


def _stated(tower: TowerSpace) -> dict[str, str]:
    files = {} if tower.tokenizer_files is None else {"tokenizer": tower.tokenizer_files}
    return {"id": tower.space().id, "weights": tower.weights, **files}


def tower_space(header: Header, tower: str) -> TowerSpace:
    """What is the same in all spaces of a tower of a file, equal to that of the model in it.

    Raises `UnknownNameError` for a tower that is not in the file, `CheckpointError` for a file that is not as written.
    """
    config, schemes = header.config, schemes_in(header)
    if tower not in schemes:
        raise unknown_name("tower", tower, schemes, "The file has no other.")
    hashes = _stated_hashes(config.get(KEY), tower)
    settings = config.get("tokenizer") if tower == "text" else None
    if hashes is None:
        weights = _weights(header, tuple(schemes), tower, schemes[tower].fallback)
        files = None if settings is None else _tokenizer_files(header)
    else:
        weights, files = hashes
    try:
        described = architecture(config["host"], config["config"], tower)
        if config["preprocessing"]:
            check_settings(config["preprocessing"], PREPROCESSING, "preprocessing")
    except (ClipqError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{header.path} is no {tower} tower of {config['host']!r:.40}: {error}.") from error
    return TowerSpace(tower, weights, schemes[tower], described, config["preprocessing"], settings, files)


def schemes_in(header: Header) -> dict[str, Scheme]:
    """The scheme of each tower. Raises `CheckpointError`."""
    try:
        return {name: Scheme.from_dict(values) for name, values in header.config["recipe"]["towers"].items()}
    except (KeyError, TypeError, AttributeError, ClipqError) as error:
        raise CheckpointError(f"{header.path}: its recipe cannot be understood ({error}).") from error


def _stated_hashes(stated: Any, tower: str) -> tuple[str, str | None] | None:
    """sha256 of the weights and of the tokenizer's files; None where the header does not say them."""
    if not isinstance(stated, dict) or stated.get("format") != FORMAT or not isinstance(stated.get(tower), dict):
        return None
    weights, files = stated[tower].get("weights"), stated[tower].get("tokenizer")
    right = all(isinstance(one, str) and _SHA256.fullmatch(one) for one in (weights, files or weights))
    return (weights, files) if right else None


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
    entry = header.tensors.get(TOKENIZER)
    return None if entry is None else files_digest(unpack_files(_bytes(header, entry).tobytes()))
