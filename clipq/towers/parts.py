"""Long calls in parts: memory for the embeddings, and for one part's work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..native.texts import distinct

_COPIED = 4096  # rows


def in_parts(encode: Callable[[slice], Tensor], count: int, size: int) -> Tensor:
    """[count, width] of what `encode` makes of the rows of a slice, at most `size` at a time."""
    if count <= size:
        return encode(slice(0, count))
    found, size = None, _even(count, size)
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        found = _put(found, part, encode(part), count)
    return found


def each_once(rows: Sequence[str], encode: Callable[[list[str]], Tensor], size: int) -> Tensor:
    """[rows, width] of what `encode` makes of at most `size` rows at a time, equal rows encoded once."""
    if len(set(rows)) == len(rows):  # nothing to remember while the parts are encoded
        return in_parts(lambda part: encode(list(rows[part])), len(rows), size)
    places, which = distinct(rows)
    if len(places) <= size:
        return encode([rows[place] for place in places])[which]
    first = torch.tensor(places)
    source = first[torch.tensor(which)]
    del places, which
    found = None
    for part in first.split(_even(len(first), size)):
        found = _put(found, part, encode([rows[place] for place in part.tolist()]), len(rows))
    for start in range(0, len(rows), _COPIED):  # a row that stands first is copied to itself
        part = slice(start, start + _COPIED)
        found[part] = found[source[part]]
    return found


def _even(count: int, size: int) -> int:
    """The size of as many parts, as even as can be: a row left over alone is multiplied otherwise by BLAS."""
    return -(-count // -(-count // size))


def _put(found: Tensor | None, where: slice | Tensor, encoded: Tensor, count: int) -> Tensor:
    found = encoded.new_empty(count, *encoded.shape[1:]) if found is None else found
    found[where] = encoded
    return found
