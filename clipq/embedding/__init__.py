"""A folder of pictures or a file of texts in, embeddings out: one matrix, or a folder of shards for any number of them.

A killed run goes on where it stopped. Imported on first use (PEP 562): inputs are listed without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from ..inputs.listing import Inputs
    from ..matrices import Embeddings, ShardedFolder, save_embeddings
    from .adding import add, add_into
    from .embedder import Embedder
    from .sharded import embed_into, embed_with
    from .whole import embed

_HOME = {
    "Embedder": ".embedder",
    "Embeddings": "..matrices",
    "Inputs": "..inputs.listing",
    "ShardedFolder": "..matrices",
    "add": ".adding",
    "add_into": ".adding",
    "embed": ".whole",
    "embed_into": ".sharded",
    "embed_with": ".sharded",
    "save_embeddings": "..matrices",
}

__all__ = [
    "Embedder",
    "Embeddings",
    "Inputs",
    "ShardedFolder",
    "add",
    "add_into",
    "embed",
    "embed_into",
    "embed_with",
    "save_embeddings",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
