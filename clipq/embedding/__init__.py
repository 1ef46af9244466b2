"""A folder of pictures or a file of texts in, embeddings out: one matrix, or a folder of shards for any number of them.

A killed run goes on where it stopped. Imported on first use (PEP 562): inputs are listed without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inputs.listing import Inputs
    from ..matrices import Embeddings, ShardedFolder, save_embeddings
    from .sharded import embed_into
    from .whole import embed

_HOME = {
    "Embeddings": "..matrices",
    "Inputs": "..inputs.listing",
    "ShardedFolder": "..matrices",
    "embed": ".whole",
    "embed_into": ".sharded",
    "save_embeddings": "..matrices",
}

__all__ = ["Embeddings", "Inputs", "ShardedFolder", "embed", "embed_into", "save_embeddings"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
