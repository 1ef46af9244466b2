"""The demo's page: one HTML file with everything in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ...inputs.images import spread
from .. import show
from .cards import ANSWERS, card, file_name, path, words
from .numbers import chance, heading, rows, unsteady
from .series import Series
from .verdict import Verdict, speed_in_words

SHOWN = 12  # pictures of a kind; of photos the others are folded away
OWN = 48  # of a visitor's pictures
_FEW = 100  # pictures; fewer are no measurement
CHANGED = 12  # of those on which the two models answer differently


@dataclass(frozen=True)
class Shown:
    """All that the page shows. times: of `benchmark`. scale: from cosines to logits. facts: about the run."""

    verdict: Verdict
    series: Sequence[Series]
    times: Mapping[str, Any]
    scale: float
    facts: Sequence[tuple[str, str]]


def page(shown: Shown) -> str:
    """The HTML of the whole page, with its pictures in it; it loads nothing."""
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    table = [heading(shown.verdict.precision), *rows(shown.verdict, shown.series, shown.times)]
    return template.substitute(
        precision=escape(shown.verdict.precision),
        verdict=words(shown.verdict.sentence()),
        about=_lead(shown),
        links=_links(shown),
        tiles="\n".join(f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in tiles(shown)),
        sections="\n".join([*(_series(shown, one) for one in shown.series), _changed(shown), *_left_out(shown.series)]),
        table=_table(table),
        facts="".join(f"<div><dt>{escape(name)}</dt><dd>{path(value)}</dd></div>" for name, value in shown.facts),
    )


def tiles(shown: Shown) -> list[tuple[str, str]]:
    """Value and label of the four tiles, as HTML."""
    found, precision = shown.verdict, escape(shown.verdict.precision)
    share = show.percent(found.same / found.n, 1)
    quality = _cosine(shown) if found.drop is None else _drop(found)
    speeds = "; ".join(f"{count} at a time: {speed_in_words(speed)}" for count, speed in sorted(found.speedups.items()))
    return [
        (f"{found.same} of {found.n}", f"pictures with the same first answer as fp32 ({share})"),
        quality,
        (f"{found.speedup:.1f} ×", f"fp32’s speed on pictures. {speeds}"),
        (show.size(found.size[1]), f"weights in {precision}; {show.size(found.size[0])} in fp32"),
    ]


def _drop(found: Verdict) -> tuple[str, str]:
    low, high = found.interval
    return f"{found.drop:.2f} points", f"drop of right first answers; 95 % interval {low:.2f} to {high:.2f}"


def _cosine(shown: Shown) -> tuple[str, str]:
    from ...evaluation.metrics import cosines

    (one,) = shown.series
    found = cosines(one.own.images, one.base.images)
    return f"{found['mean']:.4f}", f"mean cosine to fp32’s embeddings; the smallest {found['min']:.4f}"


def _lead(shown: Shown) -> str:
    name, precision = escape(shown.times["model"]["name"]), escape(shown.verdict.precision)
    busy = f' <b class="busy">{escape(text)}</b>' if (text := unsteady(shown.times)) else ""
    return (
        f"{name} looks at every picture twice, in fp32 and in {precision}, and picks one name of a list for it.{busy}"
    )


def _series(shown: Shown, series: Series) -> str:
    first = spread(series.n, OWN if series.results is None else SHOWN)
    others = [row for row in range(series.n) if row not in first] if series.what == "photos" else []
    title = _title(series)
    credit = f'<p class="credit">{escape(series.credit)}.</p>' if series.credit else ""
    text = f"{_about(shown, series)} {_choice(series, len(first))}"
    body = _grid(card(series, row, shown.verdict.precision, shown.scale) for row in first)
    if others:
        rest = _grid(card(series, row, shown.verdict.precision, shown.scale) for row in others)
        body += f"\n<details><summary>The other {len(others)} {series.what}</summary>\n{rest}\n</details>"
    return _section(title, text, f"{body}\n{credit}")


def _about(shown: Shown, series: Series) -> str:
    """What there was to choose from, and how many were right, with chance beside it."""
    names = f"{len(series.classes):,}"
    if series.results is None:
        return f"Each is given one of {escape(series.listed)}. Which is right is not known, so nothing is marked."
    base, own = (int(one.correct.sum()) for one in (series.base, series.own))
    few = f" {series.n} {series.what} are too few to measure accuracy with." if series.n < _FEW else ""
    return (
        f"Each is given one of {names} names. fp32 names {base} of {series.n} right "
        f"({show.percent(base / series.n, 1)}), {escape(shown.verdict.precision)} {own} "
        f"({show.percent(own / series.n, 1)}); chance is 1 in {names} ({chance(series, 1)}).{few} "
        "✓ marks the right name."
    )


def _choice(series: Series, count: int) -> str:
    """Which of them are shown, and what stands under each."""
    few = series.total > series.n + len(series.broken)
    taken = f"{series.n} of {series.total:,}, evenly spaced, were looked at. " if few else ""
    folded = "come first, the others are folded below them" if series.what == "photos" else "are shown"
    those = f"All {series.n} are shown" if count == series.n else f"{count}, evenly spaced, {folded}"
    return f"{taken}{those}; under each the {ANSWERS} likeliest names with their probabilities."


def _changed(shown: Shown) -> str:
    total = sum(one.n for one in shown.series)
    found = [(one, row) for one in shown.series for row in one.changed]
    if not found:
        return _section("Where the two disagree", f"Nowhere: the same first answer on all {total} pictures.", "")
    more = "All of them:" if len(found) <= CHANGED else f"The first {CHANGED}:"
    text = f"The first answers differ on {len(found)} of {total} pictures. {more}"
    cards = (card(one, row, shown.verdict.precision, shown.scale) for one, row in found[:CHANGED])
    return _section("Where the two disagree", text, _grid(cards))


def _left_out(series: Sequence[Series]) -> list[str]:
    broken = {name: reason for one in series for name, reason in one.broken.items()}
    if not broken:
        return []
    items = "".join(f"<li><b>{file_name(name)}</b>: {path(reason)}</li>" for name, reason in broken.items())
    text = f"{len(broken)} that could not be read, with the reason:"
    return [_section("Left out", text, f'<ul class="broken">{items}</ul>')]


def _grid(cards: Iterable[str]) -> str:
    return '<div class="grid">\n{}\n</div>'.format("\n".join(cards))


def _section(title: str, text: str, body: str) -> str:
    return f'<section id="{_anchor(title)}">\n<h2>{escape(title)}</h2>\n<p>{text}</p>\n{body}\n</section>'


def _title(series: Series) -> str:
    return "Your pictures" if series.results is None else series.what.capitalize()


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _links(shown: Shown) -> str:
    """To the sections below, for those who scroll with a thumb."""
    kinds = [_title(one) for one in shown.series]
    left_out = ["Left out"] if any(one.broken for one in shown.series) else []
    titles = [*kinds, "Where the two disagree", *left_out, "All numbers", "How this was measured"]
    return " ".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in titles)


def _table(table: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{words(cell)}</th>' if cell else "<td></td>" for cell in table[0])
    body = "".join(
        f'<tr><th scope="row">{words(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in table[1:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
