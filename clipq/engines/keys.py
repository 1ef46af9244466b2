"""Keys of rows as digests of 16 bytes: how many of them one machine's memory holds is what bounds a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

_SIZE = 16


def digests(names: Sequence[str]) -> bytes:
    """Of each name, one after the other."""
    found = (hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=_SIZE) for name in names)
    return b"".join(one.digest() for one in found)


def in_order(parts: Sequence[bytes]) -> numpy.ndarray:
    """All digests, sorted: [n] of dtype S16."""
    import numpy

    found = numpy.frombuffer(bytearray().join(parts), f"S{_SIZE}")  # which can be written to, and is sorted in place
    found.sort()
    return found


def lacking(hashes: numpy.ndarray, names: Sequence[str]) -> list[int]:
    """The places of those names whose digests are not among `hashes`, which are sorted."""
    import numpy

    if not len(hashes):
        return list(range(len(names)))
    asked = numpy.frombuffer(digests(names), hashes.dtype)
    places = numpy.searchsorted(hashes, asked).clip(max=len(hashes) - 1)
    return numpy.flatnonzero(hashes[places] != asked).tolist()


def repeated(hashes: numpy.ndarray) -> bytes | None:
    """A digest that is there more than once, of sorted ones."""
    again = (hashes[1:] == hashes[:-1]).nonzero()[0]
    return bytes(hashes[again[0]]).ljust(_SIZE, b"\0") if len(again) else None


def holds(names: Sequence[str], digest: bytes) -> str | None:
    """The name of a digest, if it is one of these."""
    return next((name for name in names if digests([name]) == digest), None)


@dataclass
class Known:
    """Entries of finished files, and the digests of the keys of their rows, sorted.

    seen: the digests of the rows of the data set, those that were known and those that were not.
    """

    entries: list[dict[str, Any]]
    hashes: numpy.ndarray = field(repr=False)
    seen: list[bytes] = field(default_factory=list, repr=False)
