"""Pictures of one kind with what both models answered: those of a task, or a visitor's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .asked import Asked
from .credits import credits

if TYPE_CHECKING:
    import torch

    from ...evaluation import Result, Task
    from ...evaluation.answers import Answers
    from ...inputs.images import Entry
    from ...models import Model

PROMPT = "a photo of a {c}."
"""One prompt for each name, where an evaluation would average many: the demo has to be short."""


@dataclass(frozen=True)
class Series:
    """The pictures that both models could read, in the order of both `Answers`.

    results: those of fp32 and of the other model, whose labels are the truth; `None` where nobody knows that.
    total: how many pictures there were to take these from. listed: the names of `classes`, in words. oriented: turned
    as their EXIF orientation says. credit: of all of them; credits: of each, by its label.
    """

    what: str
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    base: Answers
    own: Answers
    total: int
    results: tuple[Result, Result] | None = None
    broken: Mapping[str, str] = field(default_factory=dict)
    listed: str = ""
    oriented: bool = False
    credit: str = ""
    credits: Mapping[int, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.own.keys)

    @property
    def changed(self) -> list[int]:
        """The rows whose first answers differ."""
        return (self.own.top1 != self.base.top1).nonzero().flatten().tolist()

    def chance(self, first: int) -> float:
        """How often a guess of `first` names is right."""
        return min(1.0, first / len(self.classes))


def of_task(
    task: Task, model: Model, baseline: Model, limit: int | None = None, data: str | Path | None = None
) -> Series:
    """The pictures of a task, with one prompt for each name, answered by both models. Raises as `evaluate` does."""
    from ...evaluation import evaluate
    from ...evaluation.data import task_images

    short = replace(task, name=f"{task.name}-demo", templates=_prompt(task))
    base = evaluate(baseline, short, limit=limit, data=data)
    own = evaluate(model, short, limit=limit, data=data, baseline=base)
    images = task_images(task, data)
    entries = {entry.key: entry for entry in images.entries}
    return Series(
        what=task.name,
        classes=images.classes,
        entries=tuple(entries[key] for key in own.answers.keys),
        base=base.answers,
        own=own.answers,
        total=len(images),
        results=(base, own),
        credit=_credit(task),
        credits=credits(task.path),
    )


def _prompt(task: Task) -> tuple[str, ...]:
    """The first template of a list; of a name of open_clip's lists, which begin with odd ones, the usual prompt."""
    return (PROMPT,) if isinstance(task.templates, str) else task.templates[:1]


def _credit(task: Task) -> str:
    titled = (("Attribution", task.about.get("attribution")), ("licence", task.about.get("licence")))
    return "; ".join(f"{title}: {text.rstrip('.')}" for title, text in titled if text)


def of_pictures(source: Path, asked: Asked, model: Model, baseline: Model) -> Series:
    """A visitor's pictures, turned the way up that they say, answered by both models. Raises as `embed` does."""
    from ...evaluation.comparison import aligned

    names = asked.labels or imagenet_names()
    (own, broken), (base, _) = (_answered(one, source, asked, names) for one in (model, baseline))
    own, base = aligned(own, base)
    entries = {entry.key: entry for entry in asked.entries}
    return Series(
        what="pictures",
        classes=names,
        entries=tuple(entries[key] for key in own.keys),
        base=base,
        own=own,
        total=asked.total,
        broken=broken,
        listed=f"your {len(names)} names" if asked.labels else "ImageNet’s 1,000 names (--labels takes your own)",
        oriented=True,
    )


def imagenet_names() -> tuple[str, ...]:
    """open_clip's names of the 1,000 classes of ImageNet, of which two stand twice, once each."""
    import open_clip

    return tuple(dict.fromkeys(open_clip.IMAGENET_CLASSNAMES))


def _answered(model: Model, source: Path, asked: Asked, names: Sequence[str]) -> tuple[Answers, dict[str, str]]:
    from ...embedding import Inputs, embed
    from ...evaluation.answers import Answers
    from ...evaluation.metrics import top_answers
    from ...evaluation.prompts import class_embeddings
    from ...inputs.images import Images

    digest = Images(asked.entries, str(source)).digest()
    found = embed(model, Inputs(source, "image", tuple(one.key for one in asked.entries), digest, asked.entries))
    classes = class_embeddings(model, names, [lambda name: PROMPT.replace("{c}", name)])
    unknown = _no_labels(found.matrix)
    top1, _ = top_answers(found.matrix, classes, unknown)
    answers = Answers("pictures", 1, digest, found.names, unknown, top1, unknown[:0].bool(), found.matrix, classes)
    return answers, dict(found.broken)


def _no_labels(images: torch.Tensor) -> torch.Tensor:
    """[n] zeros, where an evaluation has labels."""
    return images.new_zeros(len(images)).long()
