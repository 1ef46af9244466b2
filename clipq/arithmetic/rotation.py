"""An orthogonal matrix that spreads whatever is large in one place over all places: the same one on every machine."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def orthogonal(size: int) -> Tensor:
    """float64 [size, size]: a Hadamard matrix of the largest power of two in `size`, times a cosine transform.

    Its columns have fixed random signs: without them a mean that all values share would end up in one place.
    """
    power = size & -size
    matrix = torch.kron(_hadamard(power), _cosine(size // power))
    signs = torch.randint(0, 2, (size,), generator=torch.Generator().manual_seed(size)) * 2 - 1
    return matrix * signs


def _hadamard(size: int) -> Tensor:
    """Sylvester's construction, of orthonormal rows; `size` is a power of two."""
    matrix, two = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.kron(matrix, two)
    return matrix / math.sqrt(size)


def _cosine(size: int) -> Tensor:
    """The orthonormal type-II discrete cosine transform."""
    places = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (places + 0.5) * places[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix
