"""`load`: from a file or a zoo name to a model that runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UnknownNameError, unknown_name
from ..files.header import Header, check_data, read_header
from ..files.spaces import TOKENIZER
from ..native.images import ImageTower
from ..native.tensors import Tensors
from ..native.texts import TextTower
from .mapped import MappedFile
from .model import RuntimeModel
from .zoo import named_file

_KINDS = {"image": ImageTower, "text": TextTower}
_AGAIN_AND_AGAIN = 3  # times the file's bytes: 16-bit floats are read as 32, and a tensor may be tied to another
_AGAIN = "Read and write it once with the whole package: clipq.save(clipq.load(FILE), NEW_FILE)."


def load(
    name_or_path: str | os.PathLike[str],
    *,
    towers: str | tuple[str, ...] | None = None,
    threads: int | None = None,
    verify: bool = True,
) -> RuntimeModel:
    """The model in a file or folder that `clipq.save` wrote, or of that name in the zoo ("clipq-tiny").

    `towers`: "image" or "text" to load that one alone, for less memory (default: all that the file has). `threads`: how
    many work on a call (default: as many as this process may run on). `verify`: compare the tensors with the sha256 in
    the header, at some gigabytes a second. Raises `CheckpointError` for a file that is damaged, or whose towers the
    native library does not compute, saying why; `UnknownNameError` for a name or a tower that is none.
    """
    path = Path(name_or_path)
    header = read_header(path if path.exists() else named_file(str(name_or_path)))
    described = _described(header.path, header.config)
    wanted = _wanted(towers, described)
    with _verified(header) if verify else nullcontext():
        return _built(header, described, wanted, threads)


@contextmanager
def _verified(header: Header) -> Iterator[None]:
    """Compare the tensors with their sha256 while they are packed: hashing leaves Python's lock to others."""
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(check_data, header)
        try:
            yield
        finally:
            verdict.result()  # what is wrong with a file that was altered is that


def _built(header: Header, described: Mapping[str, Any], wanted: tuple[str, ...], threads: int | None) -> RuntimeModel:
    file = MappedFile(header)
    built: dict[str, Any] = {}
    for tower in wanted:
        tensors = Tensors(file.get, str(header.path), file.release, _AGAIN_AND_AGAIN * header.size)
        built[tower] = _KINDS[tower](tensors, described[tower])
        file.release()
    packed = file.get(TOKENIZER) if "text" in wanted else None
    return RuntimeModel(header, built, None if packed is None else packed.tobytes(), threads)


def _described(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    towers = config.get("towers")
    if not isinstance(towers, dict) or not all(isinstance(one, dict) for one in towers.values()):
        raise CheckpointError(
            f"{path} does not say how its towers are put together: it was written by clipq before 0.6. {_AGAIN}"
        )
    return {name: one for name, one in towers.items() if name in _KINDS}


def _wanted(towers: str | tuple[str, ...] | None, described: Mapping[str, Any]) -> tuple[str, ...]:
    asked = tuple(described) if towers is None else (towers,) if isinstance(towers, str) else tuple(towers)
    for name in asked:
        if name not in described:
            raise unknown_name("tower", name, described, "The file has no other.")
        if "undescribed" in described[name]:
            others = [one for one in described if "undescribed" not in described[one]]
            alone = f" Its {others[0]} tower alone does: towers={others[0]!r}." if others else ""
            raise CheckpointError(
                f"the {name} tower does not run without torch: {described[name]['undescribed']!s:.200}.{alone} "
                "clipq.load of the whole package (pip install clipq) runs it."
            )
    if not asked:
        raise UnknownNameError("no tower is asked for; give towers='image' or towers='text', or leave it out.")
    return asked
