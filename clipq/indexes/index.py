"""`Index`: named vectors that lie somewhere, of whatever kind, read in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 1 << 14  # of a block: 32 MB at a width of 512


@dataclass(frozen=True)
class Index:
    """`names` of the rows in order, `width` of the vectors, and `read`, which gives them in order, float [k, width].

    kind: what it is, in words. about: what the file says of itself (of clipq's own: what `Embeddings.about` does).
    exact: whether the vectors are those that were put in, to rounding; codes and product quantizers give near ones.
    """

    path: Path
    kind: str
    names: Sequence[str]
    width: int
    read: Callable[[], Iterator[Tensor]]
    about: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True

    def __len__(self) -> int:
        return len(self.names)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(number of the first row, float32 [k, width]) in order. Raises `DataError` for what is no vector."""
        start = 0
        for block in self.read():
            block = block.float()
            self._check(start, block)
            yield start, block
            start += len(block)
        if start != len(self):
            raise DataError(f"{self.path} has {start} vectors and {len(self)} names; give the names of these vectors.")

    def _check(self, start: int, block: Tensor) -> None:
        if block.ndim != 2 or block.shape[1] != self.width:
            raise DataError(f"{self.path}: rows from {start} on are {list(block.shape)}, not of width {self.width}.")
        bad = (~block.isfinite().all(dim=1)).nonzero().flatten()
        if len(bad):
            name = self.names[start + int(bad[0])]
            raise DataError(f"{self.path}: the vector of {name!r} is not finite ({len(bad)} such). Make it again.")

    def described(self) -> dict[str, Any]:
        """What a report says of it, as JSON values."""
        own = {key: self.about[key] for key in ("name", "precision", "tower", "space_id") if key in self.about}
        return {
            "path": str(self.path),
            "kind": self.kind,
            "rows": len(self),
            "width": self.width,
            "exact": self.exact,
            **own,
        }
