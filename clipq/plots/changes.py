"""The pictures on which the first answer changed, with the truth and both answers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..inputs.images import Images, decode, spread
from .style import INK, SOFT, axes_at, plain, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from ..evaluation.answers import Answers

_MOST, _COLUMNS = 12, 4
_LEFT, _ACROSS, _DOWN, _PICTURE, _HEAD = 0.25, 2.4, 1.42, 0.95, 0.35  # inches
_PIXELS = 96  # of a picture's longer side at most: the file stays small
_LETTERS = 20  # of a name in one line


@dataclass(frozen=True)
class Change:
    """One picture: its true name, and the two names it was given."""

    picture: Image
    truth: str
    base: str
    own: str


def shown(own: Answers, base: Answers, images: Images) -> list[Change]:
    """At most a dozen of the images of two aligned `Answers` on which they differ, spread evenly over all of them."""
    changed = (own.top1 != base.top1).nonzero().flatten().tolist()
    entries, names = {entry.key: entry for entry in images.entries}, images.classes
    found = []
    for row in (changed[i] for i in spread(len(changed), _MOST)):
        picture = decode(entries[own.keys[row]])
        picture.thumbnail((_PIXELS, _PIXELS))  # smaller if need be, never larger
        answers = (names[int(one.top1[row])] for one in (base, own))
        found.append(Change(picture, names[int(own.labels[row])], *answers))
    return found


def height(found: Sequence[Change]) -> float:
    """Inches that the pictures take, with their heading."""
    return _HEAD + _DOWN * -(-len(found) // _COLUMNS) + (0 if found else 0.1)


def draw(
    figure: Figure, found: Sequence[Change], answers: tuple[Answers, Answers], names: tuple[str, str], top: float
) -> None:
    """A heading that counts, and the pictures in rows; names: the baseline's and the model's."""
    write(figure, _counted(*answers, len(found)), _LEFT, top, size=9.5, weight="bold")
    for place, change in enumerate(found):
        down, across = divmod(place, _COLUMNS)
        _draw(figure, change, names, _LEFT + across * _ACROSS, top + _HEAD + down * _DOWN)


def _counted(own: Answers, base: Answers, shown: int) -> str:
    changed = own.top1 != base.top1
    total, n = int(changed.sum()), len(own.keys)
    if not total:
        return f"The first answer is the same on all {n} images."
    lost, gained = int((changed & base.correct).sum()), int((changed & own.correct).sum())
    text = f"The first answer changed on {total} of {n} images: {lost} lost, {gained} gained"
    return f"{text}, {total - lost - gained} wrong before and after{'' if shown == total else f'; {shown} of them'}"


def _draw(figure: Figure, change: Change, names: tuple[str, str], left: float, top: float) -> None:
    width, height = (side * _PICTURE / max(change.picture.size) for side in change.picture.size)
    axes = axes_at(figure, left, top, width, height)
    axes.imshow(change.picture, interpolation="none", aspect="auto")
    axes.set_axis_off()
    left, down = left + _PICTURE + 0.1, top - 0.02
    for label, name in (("truth", change.truth), (names[0], change.base), (names[1], change.own)):
        right = label != "truth" and name == change.truth
        lines = textwrap.wrap(plain(name), _LETTERS - (2 if right else 0), max_lines=2, placeholder=" …") or ["?"]
        lines[-1] += " ✓" if right else ""
        write(figure, plain(label), left, down, size=6.5, colour=SOFT)
        write(figure, "\n".join(lines), left, down + 0.115, size=8, colour=INK, weight="bold" if right else "normal")
        down += 0.14 + 0.15 * len(lines) + 0.03
