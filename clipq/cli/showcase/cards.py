"""One picture as a card: the picture, its name, and what both models answered."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from .series import Series

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...evaluation.answers import Answers

Answer = tuple[str, float]
"""A name and its probability."""

ANSWERS = 3
_SMALL = 128  # pixels; up to there a picture is kept as it is, above it is a photo
_LARGEST = 480  # pixels, of a photo on the page


@dataclass(frozen=True)
class Thumbnail:
    """An encoded picture of `width` x `height` pixels."""

    kind: str
    content: bytes
    width: int
    height: int


def card(series: Series, row: int, precision: str, scale: float) -> str:
    """The HTML of one picture; `scale` is the factor from cosines to logits."""
    key = series.own.keys[row]
    truth = series.classes[int(series.own.labels[row])] if series.results else None
    picture = thumbnail(series, row)
    lists = "".join(
        _list(name, answers(series, one, row, scale), truth)
        for name, one in (("fp32", series.base), (precision, series.own))
    )
    title = file_name(key) if truth is None else words(truth)
    small = " small" if max(picture.width, picture.height) <= _SMALL else ""
    return (
        f'<article class="card{small}">{_image(picture, truth or f"your picture {key}")}<h3>{title}</h3>'
        f'{_notes(series, row)}<div class="answers">{lists}</div></article>'
    )


def _notes(series: Series, row: int) -> str:
    """Whose the picture is, and whether the two models differ."""
    credit = series.credits.get(int(series.own.labels[row])) if series.results else None
    notes = [f'<p class="by">Photo: {escape(credit)}</p>'] if credit else []
    if series.own.top1[row] != series.base.top1[row]:
        notes.append('<p class="differ">The two differ.</p>')
    return "".join(notes)


def answers(series: Series, answered: Answers, row: int, scale: float) -> list[Answer]:
    """The likeliest names, best first, none twice (two of ImageNet's names stand for two classes each)."""
    chances = (scale * answered.images[row] @ answered.classes.T).softmax(dim=-1)
    first = int(answered.top1[row])  # of equal ones the first, as it was counted
    best = [first, *(i for i in chances.topk(min(2 * ANSWERS, len(series.classes))).indices.tolist() if i != first)]
    found: dict[str, float] = {}
    for i in best:
        found.setdefault(series.classes[i], float(chances[i]))
    return list(found.items())[:ANSWERS]


def thumbnail(series: Series, row: int) -> Thumbnail:
    """The picture as it is looked at, no larger than it is and, if it is a photo, than the page needs."""
    from ...inputs.images import decode

    picture = decode(series.entries[row], oriented=series.oriented)
    if max(picture.size) <= _SMALL:
        return _encoded(picture, "png", optimize=True)
    picture.thumbnail((_LARGEST, _LARGEST))
    return _encoded(picture, "jpeg", quality=85, optimize=True)


def _encoded(picture: Image, kind: str, **options: object) -> Thumbnail:
    picture.info = {}  # no profile, no comment, no place where a photo was taken
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return Thumbnail(kind, out.getvalue(), *picture.size)


def _image(picture: Thumbnail, alt: str) -> str:
    source = f"data:image/{picture.kind};base64,{base64.b64encode(picture.content).decode()}"
    return f'<img alt="{escape(alt)}" width="{picture.width}" height="{picture.height}" src="{source}">'


def _list(title: str, found: Sequence[Answer], truth: str | None) -> str:
    items = "".join(_item(name, share, name == truth) for name, share in found)
    return f'<div><p class="who">{words(title)}</p><ol>{items}</ol></div>'


def _item(name: str, share: float, right: bool) -> str:
    mark = '<span role="img" aria-label="right:">✓</span>&nbsp;' if right else ""
    percent = f"{100 * share:.0f}"
    shown = "&lt;1" if 0 < share < 0.005 else percent
    return (
        f'<li class="{"right" if right else "other"}"><span class="name">{mark}{words(name)}</span>'
        f'<span class="chance"><span class="bar"><i style="width:{percent}%"></i></span>'
        f'<span class="share">{shown} %</span></span></li>'
    )


def words(text: str) -> str:
    """Escaped, to be wrapped between words only: browsers break after hyphens too."""
    return " ".join(map(_word, text.split()))


def path(text: str) -> str:
    """Escaped, to be wrapped between words, and after a slash and an underscore: paths may have no spaces."""
    return " ".join("<wbr>".join(map(_word, _AFTER_FOLDER.split(word))) for word in text.split())


def file_name(text: str) -> str:
    """Escaped, to be wrapped wherever a part of it ends."""
    return "<wbr>".join(map(escape, _AFTER_PART.split(text)))


_AFTER_FOLDER = re.compile(r"(?<=[/_])(?=\w)")
_AFTER_PART = re.compile(r"(?<=[/_.-])(?=\w)")


def _word(word: str) -> str:
    return f'<span class="word">{escape(word)}</span>' if "-" in word else escape(word)
