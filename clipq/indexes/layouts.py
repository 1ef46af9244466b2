"""What somebody says of a file that does not say it of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """What a file does not say of itself. names: a file with the names of the rows (see `names`). name_column and
    vectors: the columns of a table; vectors also names a tensor.
    """

    names: Path | str | None = None
    name_column: str | None = None
    vectors: str | None = None
