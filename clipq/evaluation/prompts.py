"""Class names and prompt templates, and the class embeddings made from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import DataError, unknown_name

if TYPE_CHECKING:
    import torch

    from ..models import Model
    from .tasks import Task

Template = Callable[[str], str]

_OPEN_CLIP_CLASSNAMES = ("IMAGENET_CLASSNAMES",)
_OPEN_CLIP_TEMPLATES = ("OPENAI_IMAGENET_TEMPLATES", "SIMPLE_IMAGENET_TEMPLATES")
_TIMM_SYNSETS = ("imagenet-1k",)


def classnames(task: Task) -> tuple[str, ...]:
    """The class names of `task` in class order; empty if the data's folders name them."""
    if isinstance(task.classnames, str):
        return tuple(_open_clip(task.classnames, _OPEN_CLIP_CLASSNAMES, "class names"))
    return task.classnames


def wnids(task: Task) -> tuple[str, ...]:
    """The WordNet ids of `task` in class order, from timm; empty if the task has none."""
    if task.wnids is None:
        return ()
    library, _, name = task.wnids.partition(":")
    if library != "timm" or name not in _TIMM_SYNSETS:
        raise unknown_name("list of WordNet ids", task.wnids, [f"timm:{one}" for one in _TIMM_SYNSETS])
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo(name).label_names())


def templates(task: Task) -> tuple[Template, ...]:
    """The prompt templates of `task` as functions of a class name."""
    if isinstance(task.templates, str):
        return tuple(_open_clip(task.templates, _OPEN_CLIP_TEMPLATES, "templates"))
    return tuple(_filled(template) for template in task.templates)


def _filled(template: str) -> Template:
    return lambda name: template.replace("{c}", name)


def _open_clip(reference: str, allowed: Sequence[str], kind: str) -> Sequence:
    library, _, name = reference.partition(":")
    if library != "open_clip" or name not in allowed:
        raise unknown_name(kind, reference, [f"open_clip:{one}" for one in allowed])
    import open_clip

    return getattr(open_clip, name)


def prompts(names: Sequence[str], patterns: Sequence[Template]) -> list[str]:
    """Every class in every template, class by class."""
    if not patterns:
        raise DataError("no prompt templates: a task needs at least one")
    return [pattern(name) for name in names for pattern in patterns]


def class_embeddings(model: Model, names: Sequence[str], patterns: Sequence[Template]) -> torch.Tensor:
    """[len(names), D] float32 on the CPU, unit length: the mean of a class's normalised prompts, renormalised.

    Source: CLIP (Radford et al. 2021, section 3.1.4) as open_clip and CLIP_benchmark compute it.
    """
    from torch.nn.functional import normalize

    encoded = model.encode_text(prompts(names, patterns), normalize=True).float().cpu()
    return normalize(encoded.reshape(len(names), len(patterns), -1).mean(dim=1), dim=-1)
