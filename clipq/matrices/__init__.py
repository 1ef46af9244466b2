"""Embeddings as files: a matrix with the names of its rows in one file, or in a folder of numbered shards.

Imported on first use (PEP 562): where an output may be written is known without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .embeddings import Embeddings
    from .files import FORMATS, check_output, save_embeddings
    from .folders import ShardedFolder, read_manifest, read_shards
    from .reading import read_about, read_embeddings, read_ranges
    from .rows import Rows, open_rows

_HOME = {
    "FORMATS": ".files",
    "Embeddings": ".embeddings",
    "Rows": ".rows",
    "ShardedFolder": ".folders",
    "check_output": ".files",
    "open_rows": ".rows",
    "read_about": ".reading",
    "read_embeddings": ".reading",
    "read_manifest": ".folders",
    "read_ranges": ".reading",
    "read_shards": ".folders",
    "save_embeddings": ".files",
}

__all__ = [
    "FORMATS",
    "Embeddings",
    "Rows",
    "ShardedFolder",
    "check_output",
    "open_rows",
    "read_about",
    "read_embeddings",
    "read_manifest",
    "read_ranges",
    "read_shards",
    "save_embeddings",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
