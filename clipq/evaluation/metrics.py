"""From embeddings to answers and from answers to metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .statistics import proportion_interval

if TYPE_CHECKING:
    import torch

    from .answers import Answers

_ROWS = 4096  # images per product, so that 50,000 x 1,000 similarities are never all in memory


def top_answers(images: torch.Tensor, classes: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`(top1, top5)`: the class of largest cosine, and whether the label is among five (empty below 5 classes).

    images [n, D] and classes [C, D] are unit length. Two of open_clip's ImageNet class names stand twice ("missile",
    "sunglasses"), so ties are real: equal classes are multiplied once and get equal cosines, the first of them is the
    answer, and a label is among the first five if fewer than five classes lie above it.
    """
    import torch

    distinct, place = classes.unique(dim=0, return_inverse=True)
    top1, top5 = [], []
    for rows, label in zip(images.split(_ROWS), labels.split(_ROWS), strict=True):
        cosine = (rows @ distinct.T)[:, place]
        top1.append(cosine.argmax(dim=-1))  # the first of equals
        top5.append((cosine > cosine.gather(1, label[:, None])).sum(dim=-1) < 5)
    return torch.cat(top1), torch.cat(top5) if len(classes) >= 5 else labels.new_empty(0).bool()


def metrics(answers: Answers) -> dict:
    """Shares in [0, 1]: `top1` with its 95 % interval, `top5` (None below 5 classes), `mean_per_class_recall`.

    The recall is the mean over the classes that have images (balanced accuracy, as in CLIP_benchmark).
    """
    hits, n = int(answers.correct.sum()), len(answers.keys)
    return {
        "top1": hits / n,
        "top1_interval": list(proportion_interval(hits, n)),
        "top5": float(answers.top5.double().mean()) if len(answers.top5) else None,
        "mean_per_class_recall": mean_per_class_recall(answers.labels, answers.correct),
    }


def mean_per_class_recall(labels: torch.Tensor, correct: torch.Tensor) -> float:
    """Mean over the classes that occur in `labels` of the share answered right."""
    total = labels.bincount().double()
    right = labels[correct].bincount(minlength=len(total)).double()
    return float((right[total > 0] / total[total > 0]).mean())


def cosines(a: torch.Tensor, b: torch.Tensor) -> dict:
    """Row by row cosine of [n, D] and [n, D]: its mean, 1st percentile and minimum, computed in float64."""
    from torch.nn.functional import cosine_similarity

    found = cosine_similarity(a.double(), b.double(), dim=-1)
    return {"mean": float(found.mean()), "p1": float(found.quantile(0.01)), "min": float(found.min())}
