"""`evaluate`: from a model and a task to a `Result`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ..description import check_model, described_model
from ..errors import ResultError, SchemeError
from ..inputs.images import Images
from ..work.processes import launched
from ..work.work import Work, working
from . import prompts
from .answers import Answers
from .comparison import aligned, comparison, towers
from .data import Data, task_images
from .description import described_run
from .embedding import Embedded, embed_classes, embed_images
from .metrics import metrics, top_answers
from .results import Result, read_baseline, with_answers
from .tasks import Task, load_task

if TYPE_CHECKING:
    from ..models import Model


def evaluate(
    model: Model,
    task: str | os.PathLike[str] | Task,
    *,
    data: Data | None = None,
    baseline: Model | Result | str | os.PathLike[str] | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    resume: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Result | None:
    """Zero-shot classification: how many images does `model` name right, and what did quantization change?

    task: a name of `list_tasks()`, a `.toml` file, or a `Task`.
    data: local images, see `data.task_images`; `None` takes what ships with clipq, else the hub.
    baseline: the fp32 model (evaluated here too), or an earlier `Result` or result file with per-image answers.
    limit: at most this many images, always the same, spread over the classes (`Images.limited`).
    resume: a folder for finished shards; the same call after a kill goes on there, with the same numbers.
    progress: a bar on stderr; `None` shows it on a terminal.

    Under `accelerate launch` the processes share the images and classes; the main one returns the `Result`, the
    others `None`. Nothing runs under autocast. Raises `DataError` for the data, `ResultError` for a baseline that
    does not fit or embeddings that are not finite, `SchemeError` for a model that cannot be measured so.
    """
    begun = time.perf_counter()
    check_option(batch_size, "batch_size")
    task = load_task(task)
    earlier = _earlier(baseline, task)
    models = [model] if baseline is None or earlier else [model, baseline]
    for one in models:
        check_model(one, needs_text=True)
    images = task_images(task, data).limited(limit)
    processes = launched(model.device.type)
    with working(resume, processes, progress) as work:
        found = [_answered(one, task, images, work, batch_size) for one in models]
    if not processes.is_main:
        return None
    embedded, answers = found[0]
    common = described_run(model, images, embedded, processes, begun)
    return Result(
        task=task.name,
        task_version=task.version,
        n_classes=len(images.classes),
        metrics=metrics(answers),
        answers=answers,
        baseline=earlier.model if earlier else described_model(baseline) if baseline is not None else None,
        **_compared(answers, earlier.answers if earlier else found[-1][1]) if baseline is not None else {},
        **common,
    )


def check_option(value: object, name: str) -> None:
    """Raise `SchemeError` unless `value` is a whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SchemeError(f"{name}={value!r} must be a whole number >= 1")


def _earlier(baseline: object, task: Task) -> Result | None:
    """The baseline as an earlier result with its answers; `None` if it is a model, or if there is none."""
    if isinstance(baseline, Result):
        return with_answers(baseline)
    if isinstance(baseline, (str, os.PathLike)):
        return read_baseline(baseline, task.name)
    if baseline is not None and not hasattr(baseline, "encode_image"):
        raise ResultError(f"baseline={baseline!r} is no model, Result or result file; give the fp32 model")
    return None


def _answered(model: Model, task: Task, images: Images, work: Work, batch_size: int) -> tuple[Embedded, Answers]:
    import torch

    embedded = embed_images(model, images, batch_size, work)
    classes = embed_classes(model, images.classes, prompts.templates(task), work)
    entries = [images.entries[row] for row in embedded.indices.tolist()]
    labels = torch.tensor([entry.label for entry in entries])
    top1, top5 = top_answers(embedded.embeddings, classes, labels)
    keys = tuple(entry.key for entry in entries)
    about = task.name, task.version, images.digest()
    return embedded, Answers(*about, keys, labels, top1, top5, embedded.embeddings, classes)


def _compared(own: Answers, base: Answers) -> dict:
    own, base = aligned(own, base)
    return {"comparison": comparison(own, base), "towers": towers(own, base)}
