"""Where sequences lie in the rows of one matrix, and by what their queries and keys are turned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Rotary:
    """Rotary position embeddings (Su et al., arXiv:2104.09864): what queries and keys are multiplied by.

    `cos`, `sin`: [tokens, width / heads], for the rows of each sequence after its first `prefix`, which stay.
    """

    cos: Tensor
    sin: Tensor
    prefix: int = 0


@dataclass(frozen=True)
class Sequences:
    """Where sequences lie in the rows of one matrix: rows offsets[i]:offsets[i + 1] are sequence i.

    `offsets`: int64 [batch + 1] on the CPU. `longest`: the most rows of a sequence. `uniform`: all have that many.
    `rotary`: for blocks that turn queries and keys by their place in a sequence. `last_unseen`: of causal
    sequences, the last row is attended to by none, not even itself, unless it is the only one.
    """

    offsets: Tensor
    longest: int
    uniform: bool
    rotary: Rotary | None = None
    last_unseen: bool = False

    @classmethod
    def equal(cls, batch: int, tokens: int, rotary: Rotary | None = None) -> Sequences:
        """`batch` sequences of `tokens` rows each."""
        return cls(torch.arange(0, (batch + 1) * tokens, tokens), tokens, True, rotary)

    @classmethod
    def of_lengths(cls, lengths: Tensor, rotary: Rotary | None = None, last_unseen: bool = False) -> Sequences:
        """Sequences of these lengths (int64 [batch], at least 1 each)."""
        lengths = lengths.cpu()
        shortest, longest = (int(bound) for bound in lengths.aminmax())
        return cls(F.pad(lengths.cumsum(0), (1, 0)), longest, shortest == longest, rotary, last_unseen)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Tensor:
        """int64 [batch]."""
        return self.offsets.diff()

    @property
    def seen(self) -> Tensor:
        """How many rows of each sequence, from the first on, are attended to by any: int64 [batch]."""
        return (self.lengths - 1).clamp(min=1) if self.last_unseen else self.lengths

    @cached_property
    def slots(self) -> Tensor:
        """The row of each place of a [batch, longest] grid, flat; places after a sequence's end repeat its last row."""
        places = torch.arange(self.longest).expand(len(self), -1)
        return (self.offsets[:-1, None] + places.minimum(self.lengths[:, None] - 1)).flatten()

    @cached_property
    def places(self) -> Tensor:
        """The place of each row in that grid: the inverse of `slots`."""
        return (torch.arange(self.longest) < self.lengths[:, None]).flatten().nonzero().flatten()
