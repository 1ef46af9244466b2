"""What a student is told: how far its embeddings are from its teacher's, in one tower or between the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import QuantizationError, unknown_name

Embedded = Mapping[str, Tensor]
"""float32 [n, width] of length 1, for each tower."""


def cosine(student: Embedded, teacher: Embedded, scale: float) -> Tensor:
    """The mean over all inputs, and then over towers, of 1 - cosine."""
    return torch.stack([1 - (student[tower] * teacher[tower]).sum(-1).mean() for tower in student]).mean()


def similarity(student: Embedded, teacher: Embedded, scale: float) -> Tensor:
    """Cross-entropy of whom each input is like: softmax over the batch, by the student and by its teacher.

    Between the towers where there are two (affinity mimicking: TinyCLIP, Wu et al., arXiv:2309.12314), else to the
    others within one; less the teacher's own entropy, so that equal embeddings have a loss of zero.
    """
    pairs = [("image", "text"), ("text", "image")] if len(student) == 2 else [(one, one) for one in student]
    parts = []
    for one, other in pairs:
        found, wanted = (F.log_softmax(scale * _likeness(each, one, other), dim=-1) for each in (student, teacher))
        parts.append(F.kl_div(found, wanted, reduction="batchmean", log_target=True))
    return torch.stack(parts).mean()


def _likeness(embedded: Embedded, one: str, other: str) -> Tensor:
    """Cosines [n, n] between two towers; within one [n, n - 1], without those of 1 to itself."""
    cosines = embedded[one] @ embedded[other].T
    if one != other:
        return cosines
    return cosines[~torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)].view(len(cosines), -1)


def contrastive(student: Embedded, teacher: Embedded, scale: float) -> Tensor:
    """CLIP's own loss (Radford et al., arXiv:2103.00020): each image to its text among the batch's, and back."""
    logits = scale * student["image"] @ student["text"].T
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


LOSSES: Mapping[str, Callable[[Embedded, Embedded, float], Tensor]] = {
    "cosine": cosine,
    "similarity": similarity,
    "contrastive": contrastive,
}
"""By name; each is told of both embeddings and of the factor of similarities, and knows all inputs of a step."""

ACROSS = ("similarity", "contrastive")
"""Those that compare inputs of a step with each other, so that all processes' have to be there."""


def check_losses(losses: Mapping[str, float], counts: Mapping[str, int]) -> None:
    """Raise a `ClipqError` for unknown losses, weights that are none, and pairs that are not there.

    `counts`: how many inputs each trained tower has.
    """
    for name, weight in losses.items():
        if name not in LOSSES:
            raise unknown_name("loss", name, LOSSES)
        if type(weight) not in (int, float) or not 0 <= weight < float("inf"):
            raise QuantizationError(f"the loss {name!r} has the weight {weight!r}; give a number from 0 up.")
    if not any(losses.values()):
        raise QuantizationError('no loss has a weight above 0; give losses={"cosine": 1.0}, the default, or others.')
    if losses.get("contrastive") and (set(counts) != {"image", "text"} or len(set(counts.values())) != 1):
        raise QuantizationError(
            f"the contrastive loss needs pairs of images and texts, and found {counts}: quantize both towers, and give "
            'data={"image": [...], "text": [...]} of equal length, or a folder with NAME.txt beside each picture.'
        )
