"""Drift: what becomes of an index that stands when the model behind it is another one.

Rankings over an index that streams by in blocks, how alike two rankings are, intervals over queries, and one verdict.
Nothing here writes to an index. Imported on first use (PEP 562): `clipq drift --help` needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .measuring import drift
    from .pages import page, save_report
    from .reports import Drift

_HOME = {"Drift": ".reports", "drift": ".measuring", "page": ".pages", "save_report": ".pages"}

__all__ = ["Drift", "drift", "page", "save_report"]

__getattr__, __dir__ = lazily(__name__, _HOME)
