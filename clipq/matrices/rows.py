"""Embeddings that stay on disk: rows of a file, or of a folder of shards, read where they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from ..errors import DataError
from ..vectors.rescoring import Rescored, rescore
from .embeddings import Embeddings
from .files import read_file
from .folders import read_manifest, read_shard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..vectors.ranges import Ranges

_OPEN = 4  # shards at a time; those of parquet are in memory then


@dataclass(frozen=True)
class Rows:
    """The rows of a file or a folder, by their number in it. `about`: what the file or the manifest says of them.

    parts: the files' embeddings, each opened when it is asked for. ends: how many rows there are up to the end of each.
    """

    about: dict[str, Any]
    ends: tuple[int, ...]
    part: Callable[[int], Embeddings]

    def __len__(self) -> int:
        return self.ends[-1]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and numbers (of bits: bytes) of each."""
        return len(self), self.part(0).matrix.shape[1]

    @property
    def dtype(self) -> str:
        """Of `vectors.DTYPES`."""
        return self.about.get("dtype", "float32")

    @property
    def ranges(self) -> Ranges | None:
        return self.part(0).ranges

    def __getitem__(self, places: NDArray[numpy.int64]) -> NDArray[Any]:
        """[m, C] the codes at increasing places [m]. Raises `DataError` for others."""
        places = numpy.asarray(places)
        if (numpy.diff(places, prepend=-1, append=len(self)) <= 0).any():
            raise DataError(f"rows are asked for in increasing order, each once, from 0 to {len(self) - 1}.")
        codes = [part.matrix.numpy()[own] for part, own in self._of(places)]
        return numpy.concatenate(codes) if codes else self.part(0).matrix.numpy()[:0]

    def names(self, places: Sequence[int] | NDArray[numpy.int64]) -> list[str]:
        """The names of some rows, in the order given."""
        wanted, each = numpy.unique(numpy.asarray(places, numpy.int64), return_inverse=True)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise DataError(
                f"there are {len(self)} rows, 0 to {len(self) - 1}; asked for: {wanted[0]} to {wanted[-1]}."
            )
        found = [part.names[place] for part, own in self._of(wanted) for place in own]
        return [found[place] for place in each.reshape(-1)]

    def rescore(self, asked: Any, candidates: Any, k: int = 10) -> Rescored:
        """`vectors.rescore` of candidates by these rows, which are read a few at a time, in order.

        Codes of rows that were of unit length are given it back. Raises what `vectors.rescore` does.
        """
        unit = self.dtype != "float32" and bool(self.about.get("normalized"))
        return rescore(asked, candidates, self, k, dtype=self.dtype, ranges=self.ranges, unit=unit)

    def _of(self, places: NDArray[numpy.int64]) -> Iterator[tuple[Embeddings, NDArray[numpy.int64]]]:
        """The parts that hold some of `places`, and the places in them."""
        cuts = numpy.searchsorted(places, (0, *self.ends))
        for number, (start, end) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
            if start < end:
                first = self.ends[number - 1] if number else 0
                yield self.part(number), places[start:end] - first


def open_rows(path: str | os.PathLike[str]) -> Rows:
    """The rows of a file or folder of `clipq embed`, of which only what is asked for is read.

    .safetensors and .npy are mapped into memory; a .parquet file is read as a whole, of a folder of them one at a time
    (its shards are not compared with their sha256: `read_shards` does that).
    Raises `DataError` naming the file that is missing, damaged or something else, also when it is first asked for.
    """
    path = Path(path)
    if not path.is_dir():
        found = read_file(path)
        return Rows(found.about, (len(found.names),), lambda _: found)
    about = read_manifest(path)
    ends = tuple(accumulate(entry["rows"] for entry in about["shards"]))
    return Rows(about, ends, lru_cache(_OPEN)(lambda number: read_shard(path, about, number)))
