"""What the codes of one tower's embeddings are measured by: taken from a stated source once, then kept as it is."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import ClipqWarning, DataError
from ..inputs.images import spread

if TYPE_CHECKING:
    from torch import Tensor

_SHARE = 0.9999  # of the values lie within the one limit; less would clip a dimension that is far wider than the others
_ROWS = 16_384  # of a long matrix that are looked at, evenly spread
_FEW = 100  # rows below which per-dimension numbers are guesses
_NARROWEST = 1e-3  # of the limit: a dimension that never moved in the source has this standard deviation

TENSORS = ("mean", "std", "limit")
SAME = ("fingerprint", "tower", "normalized")
"""What has to agree between ranges and the embeddings that they are for."""


@dataclass(frozen=True, eq=False)
class Ranges:
    """Frozen numbers of one tower of one model.

    mean, std: float32 [D], of each dimension. limit: float32 [], one range for all dimensions.
    about: `fingerprint`, `tower` and `normalized` of the embeddings, `origin` (in words) and `rows` of the source.
    Raises `DataError` for numbers that no matrix has.
    """

    mean: Tensor
    std: Tensor
    limit: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if reason := self._damage():
            raise DataError(f"these are no ranges: {reason}. Take those of a file that `clipq embed` wrote.")

    def _damage(self) -> str:
        import torch

        shapes = [list(getattr(self, name).shape) for name in TENSORS]
        if self.mean.ndim != 1 or not len(self.mean) or shapes != [shapes[0], shapes[0], []]:
            return f"their shapes are {shapes}, not [D], [D] and []"
        if any(getattr(self, name).dtype != torch.float32 for name in TENSORS):
            return "they are not float32"
        if not all(getattr(self, name).isfinite().all() for name in TENSORS):
            return "they hold NaN or infinity"
        return "" if self.limit > 0 and (self.std > 0).all() else "a range is not greater than 0"

    @property
    def width(self) -> int:
        return len(self.mean)

    @property
    def unevenness(self) -> float:
        """How many times as wide as most dimensions the one limit is: above 2, one range for all loses recall."""
        return float(self.limit / (self.mean.abs() + 4 * self.std).median())

    def described(self) -> dict[str, Any]:
        """`about`, and the sha256 of the numbers: codes of two files with the same one can be compared."""
        digest = hashlib.sha256(b"".join(getattr(self, name).contiguous().numpy().tobytes() for name in TENSORS))
        return {**self.about, "sha256": digest.hexdigest()}

    def check_for(self, about: Mapping[str, Any]) -> None:
        """Raise `DataError` unless these are ranges of the model and tower that `about` describes."""
        for key in SAME:
            own, other = self.about.get(key), about.get(key)
            if own != other:
                raise DataError(
                    f"these ranges were measured with {key} {json.dumps(own)}, and the embeddings have "
                    f"{json.dumps(other)}: codes by them could not be compared with any others. Take the ranges of an "
                    "earlier file of the same model, precision and tower, or none: clipq then measures its own."
                )


def ranges_of(matrix: Tensor, about: Mapping[str, Any], origin: str) -> Ranges:
    """Measure ranges on float embeddings [n, D] that are like those to come; at most 16,384 rows are looked at.

    about: what is said of the embeddings; `fingerprint`, `tower` and `normalized` are kept. origin: the source, named.
    Raises `DataError` for fewer than two rows or rows that are not finite; below 100 rows it is a `ClipqWarning`.
    """
    if matrix.ndim != 2 or len(matrix) < 2:
        raise DataError(f"ranges need at least two rows of embeddings [n, D]; {origin} has shape {list(matrix.shape)}.")
    rows = matrix[spread(len(matrix), _ROWS)].double()
    if not rows.isfinite().all():
        raise DataError(f"{origin}: an embedding is not finite, so it says nothing about ranges.")
    if len(matrix) < _FEW:
        few = f"ranges from {len(matrix)} rows ({origin}) are guesses; {_FEW} or more are better"
        warnings.warn(few, ClipqWarning, stacklevel=2)
    sizes = rows.abs().flatten()
    limit = sizes.kthvalue(max(1, round(_SHARE * sizes.numel()))).values
    if not limit:
        raise DataError(f"{origin}: its embeddings are 0, which says nothing about ranges.")
    std = rows.std(dim=0).clamp(min=_NARROWEST * float(limit))
    kept = {**{key: about.get(key) for key in SAME}, "origin": origin, "rows": len(matrix)}
    return Ranges(rows.mean(dim=0).float(), std.float(), limit.float(), kept)
