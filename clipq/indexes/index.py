"""`Index`: named vectors that lie somewhere, of whatever kind, read in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ClipqError, DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 1 << 14  # of a block: 32 MB at a width of 512


@dataclass(frozen=True)
class Index:
    """`names` of the rows in order, `width` of the vectors, and `read`, which gives them in order, float [k, width].

    kind: what it is, in words. about: what the file says of itself (of clipq's own: what `Embeddings.about` does).
    exact: whether the vectors are those that were put in, to rounding; codes and product quantizers give near ones.
    metric: what the index itself ranks by, if that is not cosines: of vectors of one length alone is it the same.
    uneven: lengths that differ by no more than this share are one: rounding makes them so.
    """

    path: Path
    kind: str
    names: Sequence[str]
    width: int
    read: Callable[[], Iterator[Tensor]]
    about: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True
    metric: str | None = None
    uneven: float = 1e-3

    def __len__(self) -> int:
        return len(self.names)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(number of the first row, float32 [k, width]) in order.

        Raises `DataError` for what is no vector, and for vectors of several lengths where the index ranks by these too.
        """
        start, shortest, longest = 0, float("inf"), 0.0
        for block in self._read():
            block = block.float()
            self._check(start, block)
            lengths = block.norm(dim=1)
            self._check_directions(start, lengths)
            if len(block):
                shortest, longest = min(shortest, float(lengths.min())), max(longest, float(lengths.max()))
                self._check_lengths(shortest, longest)
            yield start, block
            start += len(block)
        if start != len(self):
            raise DataError(f"{self.path} has {start} vectors and {len(self)} names; give the names of these vectors.")

    def _read(self) -> Iterator[Tensor]:
        try:
            yield from self.read()
        except (ClipqError, MemoryError):
            raise
        except Exception as error:  # the border to a file that may hold anything
            reason = f"{type(error).__name__}: {first_line(error)[:200]}".rstrip(".")
            raise DataError(f"{self.path} holds vectors that cannot be read: {reason}.") from error

    def _check_directions(self, start: int, lengths: Tensor) -> None:
        zero = (lengths == 0).nonzero().flatten()
        if len(zero):
            name = self._name(start + int(zero[0]))
            raise DataError(
                f"{self.path}: the vector of {name!r} is 0 ({len(zero)} such in rows {start} to "
                f"{start + len(lengths) - 1}), which is no direction. Embed these again, or leave them out."
            )

    def _check_lengths(self, shortest: float, longest: float) -> None:
        if self.metric is not None and longest > shortest * (1 + self.uneven):
            raise DataError(
                f"{self.path} ranks by {self.metric} and its vectors are {shortest:.4g} to {longest:.4g} long; what is "
                "compared here are cosines, which rank otherwise. Make the index of normalized vectors, or name their "
                "matrix (.npy, .parquet), of which cosines are compared whatever searches it."
            )

    def _check(self, start: int, block: Tensor) -> None:
        if block.ndim != 2 or block.shape[1] != self.width:
            raise DataError(f"{self.path}: rows from {start} on are {list(block.shape)}, not of width {self.width}.")
        bad = (~block.isfinite().all(dim=1)).nonzero().flatten()
        if len(bad):
            name = self._name(start + int(bad[0]))
            raise DataError(f"{self.path}: the vector of {name!r} is not finite ({len(bad)} such). Make it again.")

    def _name(self, row: int) -> str:
        return self.names[row] if row < len(self) else f"row {row}"

    def described(self) -> dict[str, Any]:
        """What a report says of it, as JSON values."""
        own = {key: self.about[key] for key in ("name", "precision", "tower", "space_id") if key in self.about}
        return {
            "path": str(self.path),
            "kind": self.kind,
            "rows": len(self),
            "width": self.width,
            "exact": self.exact,
            "metric": self.metric,
            **own,
        }
