"""Embeddings as vector stores keep them: float16, int8 and bits, by ranges that are measured once and then frozen.

Nothing here reads or writes a file, and nothing looks at the batch it converts: equal ranges give equal codes.
Imported on first use (PEP 562): the names of the kinds need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .codes import DTYPES, dequantize, quantize, queries
    from .defaults import default_ranges
    from .ranges import Ranges, ranges_of
    from .rescoring import Rescored, rescore

_HOME = {
    "DTYPES": ".codes",
    "Ranges": ".ranges",
    "Rescored": ".rescoring",
    "default_ranges": ".defaults",
    "dequantize": ".codes",
    "quantize": ".codes",
    "queries": ".codes",
    "ranges_of": ".ranges",
    "rescore": ".rescoring",
}

__all__ = [
    "DTYPES",
    "Ranges",
    "Rescored",
    "default_ranges",
    "dequantize",
    "quantize",
    "queries",
    "ranges_of",
    "rescore",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
