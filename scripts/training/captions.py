"""What the text tower is taught: every name in every wording, and which directions of the embedding space it means."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import common_words
import drawings
import torch
import torch.nn.functional as F
from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

PLAIN = ("{c}", "a {c}", "the {c}")
"""Wordings that say nothing of how the thing is shown."""


@dataclass(frozen=True)
class Group:
    """Texts that mean the same, and the rows of the anchors of which they mean the middle."""

    texts: tuple[str, ...]
    anchors: tuple[int, ...]


def groups(concepts: Sequence[str], names: Sequence[Sequence[str]]) -> list[Group]:
    """All texts. The anchors are those of the drawings' `concepts` (with their other `names`), then ImageNet's classes.

    A word that both worlds know ("lion") means the drawing in the drawings' wordings, the photo in ImageNet's, and the
    middle of both where nothing is said.
    """
    drawn = {drawings.words(name).lower(): row for row, group in enumerate(names) for name in group}
    photos = {name.lower(): (len(concepts) + row,) for row, name in enumerate(IMAGENET_CLASSNAMES)}
    words = {word: tuple(len(concepts) + row for row in rows) for word, rows in common_words.GROUPS.items()}
    found = [
        Group(tuple(_drawn(name, photos.keys() | words)), (row,)) for row, group in enumerate(names) for name in group
    ]
    for name, rows in (photos | words).items():
        found.append(Group(tuple(_in_photos(name)), rows))
        both = (*rows, drawn[name]) if name in drawn else rows
        found.append(Group(tuple(template.format(c=name) for template in PLAIN), both))
    return found


def _drawn(name: str, elsewhere: Iterable[str]) -> list[str]:
    """A drawing's captions; the bare name is left to the middle of both worlds where the other one knows it too."""
    word = drawings.words(name).lower()
    texts = [template.format(c=word) for template in drawings.TEMPLATES]
    return texts if word not in elsewhere else [text for text in texts if text != word]


def _in_photos(name: str) -> list[str]:
    """ImageNet's wordings; ("a photo of a {c}." is one of them, also without the full stop)."""
    texts = [template(name) for template in OPENAI_IMAGENET_TEMPLATES]
    return [*texts, *(text.removesuffix(".") for text in texts[:40])]


class Captions:
    """Token ids of all texts, drawn evenly over the drawings' and ImageNet's groups."""

    def __init__(self, found: Sequence[Group], tokenize, concepts: int) -> None:
        self.ids = [tokenize(list(group.texts)) for group in found]
        self.anchors = [group.anchors for group in found]
        self.worlds = [[], []]
        for row, anchors in enumerate(self.anchors):
            self.worlds[anchors[0] >= concepts].append(row)

    def draw(self, count: int, rng: random.Random) -> tuple[torch.Tensor, list[int]]:
        """Token ids [count, context] and the groups they are of."""
        rows = [rng.choice(self.worlds[i % 2]) for i in range(count)]
        return torch.stack([rng.choice(self.ids[row]) for row in rows]), rows

    def goals(self, anchors: torch.Tensor) -> torch.Tensor:
        """Where each group's texts belong, [groups, width], of length 1."""
        return F.normalize(torch.stack([anchors[list(rows)].mean(0) for rows in self.anchors]), dim=-1)

    def shares(self, total: int) -> torch.Tensor:
        """How much of each anchor a group is, [groups, total]."""
        shares = torch.zeros(len(self.anchors), total)
        for row, anchors in enumerate(self.anchors):
            shares[row, list(anchors)] = 1 / len(anchors)
        return shares
