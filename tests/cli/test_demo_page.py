"""The page of `clipq demo`: what it says is what was measured, and it can be read by everybody, everywhere."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from page_reader import Page
from PIL import Image

from clipq.cli import demo, main, show
from clipq.cli.showcase import page as page_module
from clipq.cli.showcase.cards import file_name, path, words
from clipq.cli.showcase.numbers import unsteady
from clipq.cli.showcase.page import Shown
from clipq.cli.showcase.verdict import Verdict


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Page, Shown]:
    """The page of a small run of the embedded model, and what it was made of."""
    path, made, write = tmp_path_factory.mktemp("demo") / "demo.html", [], page_module.page
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "QUICK", demo.Scope(14, 10, 1, (1, 2)))
        patch.setattr(page_module, "page", lambda shown: made.append(shown) or write(shown))
        assert main(["demo", "--quick", "--threads", str(torch.get_num_threads()), "-o", str(path)]) == 0
    return Page(path), made[0]


@pytest.fixture
def page(ran) -> Page:
    return ran[0]


@pytest.fixture
def shown(ran) -> Shown:
    return ran[1]


def test_the_verdict_is_what_the_results_say(page, shown):
    results = [one.results[1] for one in shown.series]
    n = sum(result.n for result in results)
    same = sum(round(result.comparison["agreement"] * result.n) for result in results)
    rows = [row for row in shown.times["rows"] if row["tower"] == "image"]
    speed = min(row["baseline_ms"]["median"] / row["ms"]["median"] for row in rows)
    (sentence,) = page.texts("h1")
    assert sentence == shown.verdict.sentence()
    assert f"{same} of {n} pictures" in sentence and sentence.startswith("int8 gives the same answer as fp32 on ")
    assert shown.verdict.speedup == pytest.approx(speed)
    assert f"{speed:.1f} times faster" in sentence or 1 / speed > 1.04 or "same speed" in sentence


def test_four_tiles(page, shown):
    results = [one.results[1].comparison for one in shown.series]
    drop = 100 * sum(one["lost"] - one["gained"] for one in results) / sum(one["n"] for one in results)
    low, high = shown.verdict.interval
    assert low <= drop <= high
    texts = page.texts("div", class_="tile")
    assert len(texts) == 4
    assert f"{drop:.2f} points" in texts[1] and f"95 % interval {low:.2f} to {high:.2f}" in texts[1]
    assert f"{shown.verdict.speedup:.1f} ×" in texts[2]
    assert all(show.size(count) in texts[3] for count in shown.verdict.size)


def test_photos_come_before_drawings_and_disagreements_after_them(page, shown):
    titles = page.texts("h2")
    assert titles[-3:] == ["Where the two disagree", "All numbers", "How this was measured"]
    assert titles[:-3] == [one.what.capitalize() for one in shown.series]
    assert titles == sorted(titles, key=["Photos", "Drawings", *titles[-3:]].index)


def test_headings_are_in_order(page):
    levels = [int(one.tag[1]) for one in page.elements if re.fullmatch(r"h[1-6]", one.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_chance_stands_beside_every_accuracy(page, shown):
    for one in shown.series:
        (text,) = [text for text in page.texts("p") if f"one of {len(one.classes):,} names" in text]
        assert f"{100 * one.results[1].metrics['top1']:.1f} %" in text
        assert f"chance is 1 in {len(one.classes):,} ({100 / len(one.classes):.2g} %)" in text
    for row in page.texts("th", scope="row"):
        assert "chance" in row or ("right" not in row and "first five" not in row)


def test_every_picture_has_a_name_and_no_more_than_its_own_pixels(page, shown):
    pictures = page.all("img")
    assert len(pictures) >= 12
    for one in pictures:
        size = int(one.attributes["width"]), int(one.attributes["height"])
        assert one.attributes["alt"] and size == one.picture().size and max(size) <= 480
    rules = " ".join(re.findall(r"img \{([^}]*)\}", page.style))
    assert "width: auto; height: auto; max-width: 100%;" in rules
    assert set(re.findall(r"(?<!max-)(?:width|height): (\w+)", rules)) == {"auto"}
    assert [one.attributes["alt"] for one in pictures] == page.texts("h3")


def test_both_precisions_answer_each_picture_and_right_ones_have_a_mark(page, shown):
    cards = page.texts("p", class_="who")
    assert cards == ["fp32", "int8"] * len(page.all("article"))
    right = page.all("li", class_="right")
    assert len(right) == len(page.all("span", role="img")) and all("✓" in one.text for one in right)
    assert not any("✓" in one.text for one in page.all("li", class_="other"))


def test_authors_are_named_beside_their_photos(page, shown):
    photos = next(one for one in shown.series if one.what == "photos")
    credits = [f"Photo: {photos.credits[label]}" for label in photos.own.labels.tolist()]
    assert sorted(page.texts("p", class_="by")[: photos.n]) == sorted(credits)
    assert len(set(credits)) > 10 and all(re.search(r", (public domain|CC0-1.0|CC-BY-\d.0)$", one) for one in credits)
    assert all(any(one.credit in text for text in page.texts("p", class_="credit")) for one in shown.series)


def test_all_photos_are_there(page, shown):
    photos = next(one for one in shown.series if one.what == "photos")
    names = [photos.classes[label] for label in photos.own.labels.tolist()]
    assert sorted(page.texts("h3")[: photos.n]) == sorted(names)
    assert page.texts("summary") == [f"The other {photos.n - 12} photos"]


def test_disagreements_are_counted_and_shown(page, shown):
    changed = sum(one.n - round(one.results[1].comparison["agreement"] * one.n) for one in shown.series)
    total = sum(one.n for one in shown.series)
    said = {
        f"The first answers differ on {changed} of {total} pictures. All of them:": 0 < changed <= 12,
        f"The first answers differ on {changed} of {total} pictures. The first 12:": changed > 12,
        f"Nowhere: the same first answer on all {total} pictures.": changed == 0,
    }
    assert [text in page.texts("p") for text in said] == list(said.values())
    assert len(page.texts("p", class_="differ")) >= min(changed, 12)


def test_at_most_a_dozen_disagreements_are_shown_of_however_many_there_are(shown):
    drawings = shown.series[-1]
    other = replace(drawings, own=replace(drawings.own, top1=(drawings.base.top1 + 1) % len(drawings.classes)))
    html = page_module.page(replace(shown, series=[other]))
    assert f"differ on {other.n} of {other.n} pictures. The first 12:" in html
    assert html.split("Where the two disagree")[1].count("<article") == 12


def test_it_is_one_file_that_asks_nobody(page):
    inside = {f"#{one.attributes['id']}" for one in page.all("section")}
    assert set(page.loaded()) == inside and len(inside) == len(page.texts("h2"))
    assert not page.all("script", "link", "iframe", "object", "embed", "form", "base")
    assert "url(" not in page.style and "@import" not in page.style
    assert not [name for one in page.elements for name in one.attributes if name.startswith("on")]


def test_it_says_when_where_and_how(page, shown):
    facts = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert list(facts) == ["Date", "Machine", "Model", "Versions", "Took", "Command"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", facts["Date"])
    assert shown.times["environment"]["processor"] in facts["Machine"]
    assert f"torch {torch.__version__}".startswith(re.search(r"torch [\d.]+", facts["Versions"])[0])
    assert facts["Command"] == f"clipq demo --quick --threads {torch.get_num_threads()} -o {page.path}"


def test_the_table_says_that_it_scrolls(page):
    (region,) = page.all("div", role="region")
    assert region.attributes["tabindex"] == "0" and region.attributes["aria-label"]
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto[^}]*local,[^}]*scroll, var\(--card\)", page.style)


def test_words_do_not_break(page):
    assert not re.search(r"overflow-wrap|word-break|word-wrap|hyphens|break-all", page.style)
    assert words("black-and-white <Colobus>") == '<span class="word">black-and-white</span> &lt;Colobus&gt;'
    assert path("a/b_c-d.png <") == 'a/<wbr>b_<wbr><span class="word">c-d.png</span> &lt;'
    assert file_name("a_b-c<.png") == "a_<wbr>b-<wbr>c&lt;.<wbr>png"
    assert ".word { white-space: nowrap; }" in page.style


COLOURS_OF_TEXT = {"ink": ("page", "card"), "soft": ("page", "card"), "accent": ("page", "card"),
                   "good": ("card",), "warn": ("page", "card")}  # fmt: skip


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(page, scheme):
    """At least 4.5 to 1 for all text (WCAG 2.2, 1.4.3), with the colours that the style names."""
    assert set(re.findall(r"[ ;{]color: var\(--(\w+)\)", page.style)) == set(COLOURS_OF_TEXT)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", re.findall(r":root \{(.*?)\}", page.style, re.S)[scheme]))
    for text, grounds in COLOURS_OF_TEXT.items():
        for ground in grounds:
            light, dark = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(
    ("same", "speedup", "size", "words"),
    [
        (99, 3.94, (400, 100), "on 99 of 100 pictures, 3.9 times faster, in a quarter of the size,"),
        (41, 0.5, (400, 400), "on only 41 of 100 pictures, 2.0 times slower, in 100 % of the size,"),
        (100, 1.04, (400, 200), "on 100 of 100 pictures, at the same speed, in half the size,"),
        (90, 0.94, (100, 27), "on 90 of 100 pictures, 1.1 times slower, in 27 % of the size,"),
    ],
)
def test_the_verdict_is_honest(same, speedup, size, words):
    found = Verdict("int8", same, 100, size, {1: speedup + 1, 16: speedup})
    assert found.sentence() == f"int8 gives the same answer as fp32 {words} measured on this machine just now"


@pytest.mark.parametrize(("longest", "words"), [(11, ""), (40, "The machine was busy: 16 pictures took 10.0 to 40.0 ")])
def test_times_that_mean_little_are_called_so(longest, words):
    steady = {"min": 10.0, "max": 11.0}
    row = {"tower": "image", "batch_size": 16, "baseline_ms": {"min": 10.0, "max": float(longest)}, "ms": steady}
    found = unsteady({"rows": [{**row, "batch_size": 1, "baseline_ms": steady}, row]})
    assert found.startswith(words) and bool(found) == bool(words)


def test_the_template_has_a_place_for_everything():
    source = Path(page_module.__file__).with_name("page.html").read_text(encoding="utf-8")
    places = set(re.findall(r"\$(\w+)", source))
    assert places == {"precision", "verdict", "about", "links", "tiles", "sections", "table", "facts"}


def test_the_screenshot_of_the_front_page_is_small():
    path = Path(__file__).resolve().parents[2] / "docs" / "demo.png"
    with Image.open(path) as picture:
        assert picture.width == 1280 and picture.height <= 1000
    assert path.stat().st_size <= 250_000
