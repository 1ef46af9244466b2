"""How far embeddings moved, without labels: by themselves, and by what they are nearest to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_SCALE = 100.0  # of similarities, as CLIP's own is clipped at


@dataclass(frozen=True)
class Difference:
    """Of embeddings [n, width] to the fp32 ones of the same inputs.

    `cosine`: the mean of n. `kl`: the mean Kullback-Leibler divergence, in nats, of the softmax over the answers (100
    times the cosines) from fp32's. `changed`: the share of inputs with another nearest answer. `drop`: points of top-1
    accuracy that this costs if fp32's softmax is right: the mean of p(nearest answer before) - p(nearest answer now).
    """

    cosine: float
    kl: float
    changed: float
    drop: float


@dataclass(frozen=True)
class Answers:
    """fp32 embeddings of the inputs of a tower, and of the answers that these are compared with; of length 1.

    Answers are the other tower's inputs, and where there is no other tower the other inputs of this one.
    """

    inputs: Tensor
    answers: Tensor | None

    @classmethod
    def of(cls, embedded: Mapping[str, Tensor], tower: str) -> Answers:
        """For `tower` of a model whose towers gave the embeddings `embedded`."""
        others = [F.normalize(one.double(), dim=-1) for name, one in embedded.items() if name != tower]
        return cls(F.normalize(embedded[tower].double(), dim=-1), others[0] if others else None)

    def difference(self, embedded: Tensor, answers: Tensor | None = None) -> Difference:
        """Of `embedded` [n, width] from the fp32 embeddings. `answers`: where those moved, too."""
        moved = F.normalize(embedded.double(), dim=-1)
        answers = self.answers if answers is None else F.normalize(answers.double(), dim=-1)
        before = self._similarities(self.inputs, self.answers)
        after = self._similarities(moved, answers)
        p = before.softmax(dim=-1)
        first, now = before.argmax(dim=-1, keepdim=True), after.argmax(dim=-1, keepdim=True)
        kl = F.kl_div(after.log_softmax(dim=-1), before.log_softmax(dim=-1), reduction="batchmean", log_target=True)
        return Difference(
            cosine=float((moved * self.inputs).sum(dim=-1).mean()),
            kl=max(float(kl), 0.0),
            changed=float((first != now).double().mean()),
            drop=100 * float((p.gather(-1, first) - p.gather(-1, now)).mean()),
        )

    def _similarities(self, rows: Tensor, answers: Tensor | None) -> Tensor:
        if answers is not None:
            return _SCALE * rows @ answers.T
        found = _SCALE * rows @ rows.T
        return found.masked_fill(torch.eye(len(found), dtype=torch.bool, device=found.device), -1e4)
