"""`Map`: from the embeddings of one model to the space of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError

_SMALLEST = 1e-3  # of the largest singular value: what a map almost forgets is not blown up again for the other tower


@dataclass(frozen=True, eq=False)
class Map:
    """y = weight @ x + offset, of embeddings x [in] as the model gives them, before they are normalized.

    weight: float64 [out, in]. offset: float64 [out], None for none. about: how it was fitted, as JSON values.
    """

    weight: Tensor
    offset: Tensor | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

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

        With M the weight it is the transpose of M's pseudo-inverse: (M⁺ᵀ t) · (M x) = t · x; of an orthogonal map it is
        the map itself. The offset adds the same to all products of a query, so it changes no order and has no part.
        """
        left, values, right = torch.linalg.svd(self.weight, full_matrices=False)
        inverse = values.clamp(min=float(values.max()) * _SMALLEST).reciprocal()
        return Map((left * inverse) @ right, None, {**self.about, "tower": "the other's"})
