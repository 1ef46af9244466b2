"""What a visitor gave to be looked at: pictures of their own, and names to choose from. Nothing heavy is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ...inputs.folders import pictures
from ...inputs.images import EXTENSIONS, Entry, FileEntry, is_image, spread, unlike_a_file


@dataclass(frozen=True)
class Asked:
    """Pictures, not yet read, of `total` that are there, and the names; None for those of ImageNet."""

    entries: tuple[Entry, ...]
    total: int
    labels: tuple[str, ...] | None


def asked(source: Path | None, labels: str | None, limit: int) -> Asked | None:
    """At most `limit` pictures of `source`, a picture or a folder of them, evenly spaced; `None` without a source.

    labels: names with commas between them. Raises `DataError` for names without pictures, for names that are empty,
    alone or given twice, and for a source that does not exist or holds no picture.
    """
    names = None if labels is None else _names(labels)
    if source is None:
        if names is not None:
            raise DataError(
                f"--labels {labels!r} names what your own pictures may show; give those too: "
                "clipq demo PHOTO_OR_FOLDER --labels ..."
            )
        return None
    entries = _entries(source)
    return Asked(tuple(entries[i] for i in spread(len(entries), limit)), len(entries), names)


def _names(labels: str) -> tuple[str, ...]:
    names = tuple(" ".join(one.split()) for one in labels.split(","))
    if not all(names):
        raise DataError(
            f'--labels {labels!r} holds an empty name; give names with commas between them: --labels "a cat,a dog"'
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"--labels {labels!r} names {twice[0]!r} twice; every name must be another one")
    if len(names) < 2:
        raise DataError(
            f"--labels {labels!r} is a single name, so every answer would be it; "
            'give at least two, with commas between them: --labels "a cat,a dog"'
        )
    return names


def _entries(source: Path) -> tuple[Entry, ...]:
    if source.is_dir():
        return pictures(source).entries
    endings = ", ".join(sorted(EXTENSIONS))
    if not os.path.lexists(source):
        raise DataError(f"{source} does not exist; give a picture, or a folder of pictures")
    if reason := unlike_a_file(source):
        raise DataError(f"{source} is {reason}; give a picture, or a folder of pictures")
    if not is_image(source):
        raise DataError(f"{source} is not named like a picture; pictures end in {endings}")
    return (FileEntry(source, source.name, 0, source.stat().st_size),)
