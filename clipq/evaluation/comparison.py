"""What quantization cost: a model's answers beside its baseline's, on the images that both could read."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import ResultError
from .metrics import cosines, metrics, top_answers
from .statistics import drop_interval, mcnemar, minimum_detectable_drop

if TYPE_CHECKING:
    import torch

    from .answers import Answers


def aligned(own: Answers, base: Answers) -> tuple[Answers, Answers]:
    """Both reduced to the images both could read.

    Raises `ResultError` naming both if they are of other tasks, versions or data, or of embeddings of another width.
    """
    for what, mine, theirs in (
        ("task", f"{own.task} version {own.task_version}", f"{base.task} version {base.task_version}"),
        ("data", own.digest, base.digest),
        ("embedding width", own.images.shape[-1], base.images.shape[-1]),
        ("number of classes", len(own.classes), len(base.classes)),
    ):
        if mine != theirs:
            raise ResultError(
                f"cannot compare: the {what} of this run is {mine} ({len(own.keys)} images), of the baseline {theirs} "
                f"({len(base.keys)} images). Evaluate both on the same task, data and limit."
            )
    common = set(own.keys) & set(base.keys)
    if not common:
        raise ResultError("cannot compare: there is no image that both this run and the baseline could read")
    both = _restricted(own, common), _restricted(base, common)
    if both[0].keys != both[1].keys or not both[0].labels.equal(both[1].labels):
        raise ResultError("cannot compare: this run and the baseline have the images in another order or other labels")
    return both


def _restricted(answers: Answers, keys: set[str]) -> Answers:
    if len(keys) == len(answers.keys):
        return answers
    kept = [i for i, key in enumerate(answers.keys) if key in keys]
    return replace(
        answers,
        keys=tuple(answers.keys[i] for i in kept),
        labels=answers.labels[kept],
        top1=answers.top1[kept],
        top5=answers.top5[kept] if len(answers.top5) else answers.top5,
        images=answers.images[kept],
    )


def comparison(own: Answers, base: Answers) -> dict:
    """All numbers of the comparison of two aligned `Answers`, JSON-able; points are percentage points.

    lost, gained: images only the baseline, only the model got right. drop_points with its paired 95 % score interval
    (Tango 1998) and McNemar's exact p. changed: share of images with another top-1 answer. recovery: top-1 divided
    by the baseline's. image_cosine and text_cosine: to the baseline's embeddings.
    """
    n = len(own.keys)
    lost = int((base.correct & ~own.correct).sum())
    gained = int((own.correct & ~base.correct).sum())
    base_metrics, changed = metrics(base), float((own.top1 != base.top1).double().mean())
    detectable = minimum_detectable_drop(n, (lost + gained) / n)
    return {
        "n": n,
        "lost": lost,
        "gained": gained,
        "drop_points": 100 * (lost - gained) / n,
        "drop_interval_points": [100 * bound for bound in drop_interval(lost, gained, n)],
        "mcnemar_p": mcnemar(lost, gained),
        "minimum_detectable_drop_points": None if math.isnan(detectable) else 100 * detectable,
        "changed": changed,
        "agreement": 1 - changed,
        "recovery": metrics(own)["top1"] / base_metrics["top1"] if base_metrics["top1"] else None,
        "image_cosine": cosines(own.images, base.images),
        "text_cosine": cosines(own.classes, base.classes),
        "baseline_metrics": base_metrics,
    }


def towers(own: Answers, base: Answers) -> list[dict]:
    """The 2x2 of towers: images embedded by either, classes by either, with the agreement to baseline and baseline.

    Computed from the four matrices at hand; nothing is encoded again.
    """
    image = {"baseline": base.images, "model": own.images}
    text = {"baseline": base.classes, "model": own.classes}
    return [{"image": one, "text": other, **_cell(image[one], text[other], base)} for one in image for other in text]


def _cell(images: torch.Tensor, classes: torch.Tensor, base: Answers) -> dict:
    top1, _ = top_answers(images, classes, base.labels)
    return {
        "top1": float((top1 == base.labels).double().mean()),
        "agreement": float((top1 == base.top1).double().mean()),
    }
