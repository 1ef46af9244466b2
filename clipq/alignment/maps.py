"""`Map`: from the embeddings of one model to the space of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError

_EVEN = 0.5
"""Of the median singular value, and its inverse the largest: what a map all but forgets, as its pairs hardly had it, is
not blown up for the other tower, whose vectors lie elsewhere (measured: texts of one model on pictures of another).
"""


@dataclass(frozen=True, eq=False)
class Map:
    """y = weight @ x + offset, of embeddings x [in] as the model gives them, before they are normalized.

    weight: float64 [out, in]. offset: float64 [out], None for none. about: how it was fitted, as JSON values.
    one_tower: whether it only takes back what happened to that tower, so that the model's other tower stays as it is.
    """

    weight: Tensor
    offset: Tensor | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    one_tower: bool = False

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows [n, in], not normalized, to float32 [n, out], not normalized. Raises `DataError` for another width."""
        if rows.ndim != 2 or rows.shape[1] != self.weight.shape[1]:
            raise DataError(f"the map takes rows [n, {self.weight.shape[1]}], and these are {list(rows.shape)}.")
        mapped = rows.double() @ self.weight.T
        return (mapped if self.offset is None else mapped + self.offset).float()

    @property
    def is_identity(self) -> bool:
        out, inputs = self.weight.shape
        return self.offset is None and out == inputs and torch.equal(self.weight, torch.eye(out).double())

    def of_other_tower(self) -> Map:
        """The map for the model's other tower, under which products of both towers stay what they are.

        With M the weight it is the transpose of M's pseudo-inverse: (M⁺ᵀ t) · (M x) = t · x, where M is not too uneven;
        of an orthogonal map it is the map itself. The offset adds the same to all products of a query, so it changes no
        order and has no part. With `one_tower` it is none.
        """
        if self.one_tower:
            return Map(torch.eye(len(self.weight), dtype=torch.float64))
        left, values, right = torch.linalg.svd(self.weight, full_matrices=False)
        middle = float(values.median())
        inverse = values.clamp(min=_EVEN * middle, max=middle / _EVEN).reciprocal()
        return Map((left * inverse) @ right, None, self.about)
