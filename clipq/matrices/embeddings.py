"""Embeddings in memory: a matrix with the names of its rows, and the ranges that its codes are measured by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..vectors.codes import dequantize, kind_of, quantize
from ..vectors.ranges import Ranges

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Embeddings:
    """`matrix` [n, D], the `names` of its rows, the `broken` inputs that have none with the reason, and `about`
    the model and the vectors: `dtype` (of `vectors.DTYPES`; float32 where it is not said; bits are packed, [n, D / 8]),
    `width` (D), how many values `saturated`, where the `ranges` are from. `ranges`: of int8 and bits.
    `kept`: the folder of this run's finished shards, which is of no more use once the matrix is saved.
    """

    names: tuple[str, ...]
    matrix: torch.Tensor
    broken: dict[str, str]
    about: dict[str, Any]
    kept: Path | None = None
    ranges: Ranges | None = None

    @property
    def dtype(self) -> str:
        return self.about.get("dtype", "float32")

    def as_dtype(self, dtype: str, ranges: Ranges | None = None) -> Embeddings:
        """These float32 embeddings as another dtype.

        ranges: for int8 and bits; measured before, on what is like all that will ever stand beside these rows, never on
        a batch: `vectors.default_ranges`, or those of an earlier file. Raises `DataError` for embeddings that are codes
        already or ranges of another model, and what `vectors.quantize` does.
        """
        if self.dtype != "float32":
            raise DataError(f"these embeddings are {self.dtype} already; convert the float32 ones, or restore() them.")
        ranges = ranges if kind_of(dtype, ranges).ranged else None
        if ranges is not None:
            ranges.check_for(self.about)
        matrix, saturated = quantize(self.matrix, dtype, ranges)
        about = {**self.about, **described_vectors(dtype, self.matrix.shape[1], saturated, ranges)}
        return replace(self, matrix=matrix, about=about, ranges=ranges)

    def restore(self) -> Embeddings:
        """float32 [n, D] near what the codes were made from: for rescoring, and for what knows no codes."""
        matrix = dequantize(self.matrix, self.dtype, self.ranges)
        return replace(self, matrix=matrix, about={**self.about, "dtype": "float32", "restored_from": self.dtype})


def described_vectors(dtype: str, width: int, saturated: int, ranges: Ranges | None) -> dict[str, Any]:
    """What `about` says of the vectors."""
    about: dict[str, Any] = {"dtype": dtype, "width": width}
    if dtype != "float32":
        about["saturated"] = saturated
    return about if ranges is None else {**about, "ranges": ranges.described()}
