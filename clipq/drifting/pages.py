"""The report as a page: one HTML file with everything in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from ..resources import output_path
from ..retrieval.intervals import Interval, Loose
from .comparing import Cell
from .reports import Drift
from .verdicts import AT, KEEP_AT, NEAR_AT, at_ten, depth, least
from .words import index_in_words, queries_in_words, reference_in_words

_BAR = 120  # pixels, of a whole
_HEADS = ("queries", "searched", "rows", "overlap@10", "", "recall@1", "recall@10", "recall@100", "rank overlap")
_SEARCHES = (
    "Each line is a search by queries of the new model, or of an index that has vectors of it, compared with what the "
    "old model&rsquo;s queries find among its own vectors; new texts, for want of old ones, with what they find among "
    "new vectors. overlap@10: the share of the first ten that both find. "
    "recall@k: how often the old nearest neighbour is among the first k. rank overlap: rank-biased overlap, p = 0.9, "
    "of the first hundred. Rows are ranked by cosine; no picture finds itself. Under each number is its "
    "95&nbsp;% interval, by bootstrap over queries."
)


def save_report(found: Drift, path: str | os.PathLike[str]) -> None:
    """Write a page for people (`.html`), or else all numbers as JSON. Raises `OutputError`."""
    text = page(found) if str(path).endswith((".html", ".htm")) else json.dumps(found.to_dict(), indent=1) + "\n"
    with output_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def page(found: Drift) -> str:
    """The HTML of the whole page; it loads nothing."""
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(f"{found.old['path']} and {found.new['name']}"),
        verdict=escape(_capital(found.verdict.sentence)),
        tiles="\n".join(
            f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in _tiles(found)
        ),
        lead=_lead(found),
        searches_about=_SEARCHES,
        searches=_table(_HEADS, map(_search, found.cells)),
        cosines_about=_cosines_about(found),
        cosines=_table(("of", *_percentiles(found)), _cosines(found)),
        map=_map(found),
        facts="".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in _facts(found)
        ),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tiles(found: Drift) -> list[tuple[str, str]]:
    """Value and label, as HTML."""
    tiles = []
    for aligned in (False, True):
        worst = least(found.cells, aligned)
        if worst is not None:
            what = f"overlap@{depth(worst)} of {queries_in_words(worst.search)}, {index_in_words(worst.search)}, "
            what += f"with {reference_in_words(worst)}: the least of all"
            tiles.append((f"{at_ten(worst)[0]:.3f}", escape(what)))
    for when, cosines in found.cosines.items():
        how = "with the map" if when == "after" else "as the model is"
        tiles.append((f"{cosines['p50'][0]:.4f}", f"median cosine to the old vector, {how}"))
    return tiles


def _lead(found: Drift) -> str:
    thresholds = (
        f"An index is kept where the lower end of the least overlap@{AT} is {KEEP_AT:g} or more; from {NEAR_AT:g} on "
        "also where, among the sampled rows, new vectors alone find no more of the old answers. Else a map is worth it "
        "that reaches this, and else the index has to be embedded again. Of an index of codes nothing but a floor is "
        "known without the old model's text queries."
    )
    about = f"{found.data['sample']:,} of {found.old['rows']:,} rows of {found.old['path']} were embedded again"
    few = f" Only {found.matched}: is this what the index was made of?" if found.few_matched else ""
    return escape(f"{about} by {found.new['name']}.{few} {thresholds}")


def _search(cell: Cell) -> list[str]:
    ten = at_ten(cell)
    recalls = [cell.recall.get(at) for at in (1, 10, 100)]
    title = f"against {reference_in_words(cell)}"
    return [
        f'<span title="{escape(title)}">{escape(queries_in_words(cell.search))}</span>',
        escape(index_in_words(cell.search)),
        f"{cell.rows:,}",
        _number(ten) + ("" if depth(cell) == AT else f"<small> @{depth(cell)}</small>"),
        "" if ten is None else _bar(ten),
        *map(_number, recalls),
        _number(cell.rank_overlap),
    ]


def _number(found: Loose | None) -> str:
    if found is None:
        return ""
    value, low, high = found
    if low is None:
        return f"{value:.4f}"
    return f"{value:.4f}<br><small>{low:.4f}&ndash;{high:.4f}</small>"


def _bar(found: Interval) -> str:
    """A bar from 0 to 1, its interval, and the least of an index that is kept."""
    value, low, high = (_BAR * min(1.0, max(0.0, one)) for one in found)
    ends = "".join(f'<line class="ends" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="14"/>' for x in (low, high))
    return (
        f'<svg viewBox="0 0 {_BAR} 18" role="img" aria-label="{found[0]:.3f}">'
        f'<rect class="track" width="{_BAR}" height="6" y="6" rx="3"/>'
        f'<rect class="bar" width="{value:.1f}" height="6" y="6" rx="3"/>{ends}'
        f'<line class="at" x1="{_BAR * KEEP_AT:.1f}" x2="{_BAR * KEEP_AT:.1f}" y1="0" y2="18"/></svg>'
    )


def _percentiles(found: Drift) -> Sequence[str]:
    measured = [*found.cosines.values(), *found.texts.values()]
    return tuple(measured[0]) if measured else ()


def _cosines(found: Drift) -> Iterable[list[str]]:
    for of, measured in ((f"{found.data['tower']}s", found.cosines), ("text queries", found.texts)):
        for when, cosines in measured.items():
            yield [f"{of}, {'with the map' if when == 'after' else 'as the model is'}", *map(_number, cosines.values())]


def _cosines_about(found: Drift) -> str:
    if not found.cosines:
        return "The two models&rsquo; vectors are of different widths, so they have no cosine without a map."
    return "The cosine of a new vector with the old one of the same input, by percentile; 1 is no change."


def _map(found: Drift) -> str:
    if found.alignment is None:
        return "None was fitted; <code>clipq drift ... --align</code> does."
    if found.map.is_identity:
        rows = f"{found.alignment['pairs']:,} other rows"
        return escape(f"None of those that were tried on {rows} is better than none{_tried(found)}.")
    return escape(
        f"{_capital(found.alignment['method'])}, fitted on {found.alignment['pairs']:,} other rows, none of which is "
        f"compared here{_tried(found)}. "
        "clipq drift ... --save-aligned FILE writes the model with the map in its last linear, which costs nothing."
    )


def _tried(found: Drift) -> str:
    held_out = found.alignment.get("held_out_overlap_at_10", {})
    tried = "; ".join(f"{name} {value:.4f}" for name, value in held_out.items())
    return f" (overlap@10 of held-out pairs: {tried})" if tried else ""


def _facts(found: Drift) -> list[tuple[str, str]]:
    machine, old = found.run.get("environment", {}), found.old
    precision = "/".join(dict.fromkeys(map(str, found.new["precision"].values())))
    exact = "" if old["exact"] else "; its vectors are codes, restored to floats"
    return [
        ("Old", f"{old['path']}: {old['kind']}, {old['rows']:,} rows of width {old['width']}{exact}"),
        ("New", f"{found.new['name']}, {precision}; fingerprint {found.new['fingerprint'][:16]}"),
        ("Spaces", _spaces(found)),
        ("Data", f"{found.data['source']}; {found.matched}"),
        ("Compared", f"{found.data['sample']:,} {found.data['tower']}s, {found.data['texts']:,} text queries"),
        ("Left out", ", ".join(found.data["broken"]) or "nothing"),
        ("Machine", f"{machine.get('processor')}, {machine.get('threads')} threads; {found.run.get('seconds')} s"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())),
    ]


def _spaces(found: Drift) -> str:
    if found.differences is None:
        return "the index does not say of which space it is"
    return "; ".join(found.differences) or "the very same, as the index says"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
