"""Existing indexes, read and never written: clipq's own files, tables and arrays of others, faiss and usearch.

Every kind gives its vectors in blocks, in order, with a name for each row. Imported on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .index import Index
    from .layouts import Layout
    from .matching import Matched, match
    from .opening import ENDINGS, open_index

_HOME = {
    "ENDINGS": ".opening",
    "Index": ".index",
    "Layout": ".layouts",
    "Matched": ".matching",
    "match": ".matching",
    "open_index": ".opening",
}

__all__ = ["ENDINGS", "Index", "Layout", "Matched", "match", "open_index"]

__getattr__, __dir__ = lazily(__name__, _HOME)
