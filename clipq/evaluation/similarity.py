"""`fidelity`: how far quantization moved the embeddings, without labels."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..description import check_model, described_model
from ..errors import DataError, ResultError
from ..inputs.folders import pictures
from ..work.processes import launched
from ..work.work import working
from .description import described_run
from .embedding import Embedded, embed_classes, embed_images
from .metrics import cosines
from .results import Result
from .running import check_option

if TYPE_CHECKING:
    from ..models import Model


def fidelity(
    model: Model,
    baseline: Model,
    images_folder: str | os.PathLike[str],
    *,
    texts: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    resume: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Result | None:
    """How far is every embedding of `model` from its baseline's? Any folder of pictures, at any depth, no labels.

    `Result.comparison` holds `n`, `image_cosine` (mean, 1st percentile, min) and, with `texts`, `text_cosine`.
    The other options, what other processes return, and the errors are those of `evaluate`.
    """
    begun = time.perf_counter()
    check_option(batch_size, "batch_size")
    for one in (model, baseline):
        check_model(one, needs_text=texts is not None)
    if texts is not None and (isinstance(texts, str) or not texts):
        raise DataError(f"texts={texts!r} must be a list of at least one string, or None")
    images = pictures(images_folder).limited(limit)
    processes = launched(model.device.type)
    with working(resume, processes, progress) as work:
        embedded = [embed_images(one, images, batch_size, work) for one in (model, baseline)]
        classes = [embed_classes(one, texts, [str], work) for one in (model, baseline)] if texts else []
    if not processes.is_main:
        return None
    moved = {**_moved(*embedded), "text_cosine": cosines(*classes) if classes else None}
    return Result(
        task="fidelity",
        task_version=1,
        n_classes=len(texts or ()),
        metrics={},
        comparison=moved,
        baseline=described_model(baseline),
        **described_run(model, images, embedded[0], processes, begun),
    )


def _moved(own: Embedded, base: Embedded) -> dict:
    """Cosines over the images that both could read."""
    import torch

    if own.embeddings.shape[-1] != base.embeddings.shape[-1]:
        widths = f"{own.embeddings.shape[-1]} and {base.embeddings.shape[-1]}"
        raise ResultError(f"cannot compare embeddings of width {widths}; give the fp32 model that was quantized")
    rows = torch.isin(own.indices, base.indices), torch.isin(base.indices, own.indices)
    if not rows[0].any():
        raise ResultError("cannot compare: there is no image that both models could read")
    return {"n": int(rows[0].sum()), "image_cosine": cosines(own.embeddings[rows[0]], base.embeddings[rows[1]])}
