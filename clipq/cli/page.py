"""The demo's page: one HTML file with the pictures in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from . import show

if TYPE_CHECKING:
    from ..evaluation import Result, Task
    from ..inputs.images import Entry

_PICTURES = 24  # shown in any case, spread evenly over the classes
_CHANGED = 12  # shown besides, of those on which the two models answer differently
_ANSWERS = 3


@dataclass(frozen=True)
class Card:
    """One picture: its true name, and the answers of both models as (name, probability), best first."""

    png: bytes
    truth: str
    base: list[tuple[str, float]]
    own: list[tuple[str, float]]


def page(own: Result, base: Result, task: Task, rows: Sequence[dict[str, str]], machine: str, scale: float) -> str:
    """The whole page; `rows` are the table's, `scale` the factor from cosines to logits."""
    cards = _cards(own, base, task, scale)
    first = spread(len(own.answers.keys), _PICTURES)
    changed = (own.answers.top1 != base.answers.top1).nonzero().flatten().tolist()
    name = show.precision(own.model)
    return Template((Path(__file__).with_name("page.html")).read_text(encoding="utf-8")).substitute(
        precision=escape(name),
        n=own.n,
        classes=own.n_classes,
        tiles=_tiles(own, rows),
        table=_table(rows),
        machine=escape(machine),
        pictures="\n".join(_html(card, name) for card in cards(first)),
        about_changed=_about_changed(len(changed), own.n),
        changed="\n".join(_html(card, name) for card in cards(changed[:_CHANGED])),
        version=escape(own.environment["versions"]["clipq"]),
    )


def spread(total: int, wanted: int) -> list[int]:
    """At most `wanted` of `range(total)`, evenly spaced."""
    count = min(total, wanted)
    return [i * total // count for i in range(count)]


def _cards(own: Result, base: Result, task: Task, scale: float) -> Callable[[Sequence[int]], list[Card]]:
    """A function that makes the cards of the rows it is given."""
    from ..evaluation.data import task_images

    images = task_images(task).limited(own.limit)
    entries = {entry.key: entry for entry in images.entries}

    def card(row: int) -> Card:
        entry = entries[own.answers.keys[row]]
        answers = [_answers(result, row, images.classes, scale) for result in (base, own)]
        return Card(_png(entry), images.classes[entry.label], *answers)

    return lambda rows: [card(row) for row in rows]


def _answers(result: Result, row: int, classes: Sequence[str], scale: float) -> list[tuple[str, float]]:
    logits = scale * result.answers.images[row] @ result.answers.classes.T
    best = logits.softmax(dim=-1).topk(min(_ANSWERS, len(classes)))
    return [(classes[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def _png(entry: Entry) -> bytes:
    from ..inputs.images import decode

    out = io.BytesIO()
    decode(entry).save(out, "PNG", optimize=True)
    return out.getvalue()


def _about_changed(changed: int, n: int) -> str:
    if not changed:
        return f"Both give the same first answer on all {n} pictures."
    shown = "All of them:" if changed <= _CHANGED else f"The first {_CHANGED}:"
    return f"The first answer changed on {changed} of {n} pictures. {shown}"


def _tiles(own: Result, rows: Sequence[dict[str, str]]) -> str:
    found = own.comparison
    low, high = found["drop_interval_points"]
    tiles = (
        ("top-1, fp32 to " + rows[1]["precision"], f"{rows[0]['top-1']} → {rows[1]['top-1']}"),
        ("drop, 95 % interval", f"{found['drop_points']:.2f} points <small>{low:.2f} to {high:.2f}</small>"),
        ("pictures answered as in fp32", rows[1]["same answer as fp32"]),
        ("weights", f"{rows[0]['weights']} → {rows[1]['weights']}"),
    )
    return "\n".join(f'<div class="tile"><b>{value}</b><span>{escape(label)}</span></div>' for label, value in tiles)


def _table(rows: Sequence[dict[str, str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html(card: Card, precision: str) -> str:
    source = base64.b64encode(card.png).decode()
    lists = _list("fp32", card.base, card.truth) + _list(precision, card.own, card.truth)
    truth = escape(card.truth)
    return (
        f'<article><img alt="{truth}" src="data:image/png;base64,{source}"><h3>{truth}</h3>'
        f'<div class="answers">{lists}</div></article>'
    )


def _list(title: str, answers: Sequence[tuple[str, float]], truth: str) -> str:
    items = "".join(
        f'<li class="{"right" if name == truth else "wrong"}" style="--p:{100 * p:.1f}%">'
        f"<span>{escape(name)}</span><i>{100 * p:.0f} %</i></li>"
        for name, p in answers
    )
    return f"<div><h4>{escape(title)}</h4><ol>{items}</ol></div>"
