"""What quantization changed: the figure of `clipq eval`, of panels that `costs`, `cosines` and `changes` draw."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..description import precision_name
from ..errors import ResultError
from ..evaluation.comparison import aligned
from ..evaluation.data import Data, task_images
from ..evaluation.results import with_answers
from ..evaluation.tasks import Task, load_task
from . import changes, cosines, costs
from .saving import check_matplotlib
from .style import caption_height, card, machine, styled, wrapped_caption

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..evaluation.answers import Answers
    from ..evaluation.results import Result
    from ..inputs.images import Images

_WIDTH, _TOP, _UNDER = 10.0, 1.15, 0.8  # inches; what lies under a panel: ticks, a label, air


def evaluation(
    result: Result,
    baseline: Result,
    *,
    task: str | os.PathLike[str] | Task | None = None,
    data: Data | None = None,
    others: Iterable[Result] = (),
) -> Figure:
    """What `result` cost against `baseline` (fp32, on the same images), in one figure of three parts:

    - size of the weights, and the share of images with the same first answer, with its 95 % interval (Wilson 1927)
      and the drop of top-1 with its own: of `result`, and of those of `others` that are of the same task, data and
      baseline (an older line of the same model counts no more; others are left out);
    - how near the embeddings of images and of classes are to the baseline's: histograms of cosines, on a scale that is
      logarithmic in the distance from 1;
    - the pictures on which the first answer changed, at most a dozen, spread evenly: truth and both answers.

    task, data: what the pictures are read from, as in `clipq.evaluate`; the task's name is in the result, a `.toml` of
    your own has to be given again. Raises `ResultError` if the two results do not belong together, have no per-image
    answers or are of other data than `data`, `DataError` if that cannot be read, `ClipqError` without matplotlib.
    """
    check_matplotlib()
    result, baseline = with_answers(result), with_answers(baseline)
    own, base = aligned(result.answers, baseline.answers)
    images = _images(result, load_task(result.task if task is None else task), data)
    rows = costs.rows(result, baseline, others)
    shown = changes.shown(own, base, images)
    return _figure(result, baseline, (own, base), rows, shown)


def _images(result: Result, task: Task, data: Data | None) -> Images:
    """The images of the result. Raises `ResultError` if `task` and `data` are others."""
    images = task_images(task, data).limited(result.limit)
    if images.digest() != result.answers.digest:
        raise ResultError(
            f"the pictures of {images.origin} are not those that were evaluated ({len(images)} and {result.n} images); "
            "give the plot the same task and data as the evaluation"
        )
    return images


def _figure(
    result: Result,
    baseline: Result,
    answers: tuple[Answers, Answers],
    rows: list[costs.Row],
    shown: list[changes.Change],
) -> Figure:
    caption = _caption(result)
    upper = max(1.9, costs.height(rows))
    lower = changes.height(shown)
    height = _TOP + upper + _UNDER + lower + caption_height(wrapped_caption(_WIDTH, caption))
    with styled():
        figure = card(_WIDTH, height, *_heading(result, baseline), caption)
        costs.draw(figure, rows, _TOP, upper)
        cosines.draw(figure, *answers, _TOP, upper)
        changes.draw(figure, shown, answers, _names(result, baseline), _TOP + upper + _UNDER)
    return figure


def _names(result: Result, baseline: Result) -> tuple[str, str]:
    """What the two are called beside their answers: precisions, the baseline's first."""
    own, base = precision_name(result.model), precision_name(baseline.model)
    return ("baseline" if own == base else base), own


def _heading(result: Result, baseline: Result) -> tuple[str, str]:
    base, own = _names(result, baseline)
    name = result.model["name"]
    other = base if baseline.model["name"] == name else f"{baseline.model['name']} ({base})"
    about = f"{result.task}, {result.n} images, {result.n_classes} classes: the first answer is the same on "
    return f"{name}: {own} against {other}", f"{about}{100 * result.comparison['agreement']:.2f} %"


def _caption(result: Result) -> list[str]:
    found = result.comparison
    return [
        f"Intervals are 95 %: of agreement Wilson's, of the drop of top-1 paired (Tango 1998); n = {found['n']}.",
        f"Top-1 {100 * found['baseline_metrics']['top1']:.2f} % to {100 * result.metrics['top1']:.2f} %.",
        f"{machine(result.model, result.environment)}; {result.date[:10]}.",
    ]
