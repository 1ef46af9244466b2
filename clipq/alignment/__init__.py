"""Alignment: a linear map from a new model's space to an old one's, fitted on pairs, and folded into the model.

Imported on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .aligning import align, fold
    from .fitting import fit
    from .maps import Map
    from .methods import METHODS

_HOME = {"METHODS": ".methods", "Map": ".maps", "align": ".aligning", "fit": ".fitting", "fold": ".aligning"}

__all__ = ["METHODS", "Map", "align", "fit", "fold"]

__getattr__, __dir__ = lazily(__name__, _HOME)
