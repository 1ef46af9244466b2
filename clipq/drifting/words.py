"""Searches in words, for people."""

from __future__ import annotations

from .comparing import Cell, Search

_OF = {"image": "pictures", "text": "texts"}


def queries_in_words(search: Search) -> str:
    """ "new pictures", "new texts, mapped"."""
    mapped = ", mapped" if search.aligned and search.queries == "new" else ""
    return f"{search.queries} {_OF[search.of]}{mapped}"


def index_in_words(search: Search) -> str:
    """ "the index", "sample: both, half of it new"."""
    inside = {
        "old": "old vectors",
        "new": "new vectors",
        "mixed": "half of them new",
        "partly new": "the sample's new",
    }[search.index]
    mapped = ", mapped" if search.aligned and search.index != "old" else ""
    where = "whole index" if search.scope == "index" else "sample"
    return f"{where}: {inside}{mapped}"


def reference_in_words(cell: Cell) -> str:
    """What the searches of a cell are compared with: "old pictures on old vectors"."""
    found = cell.reference
    return f"{queries_in_words(found)} on {found.index} vectors"
