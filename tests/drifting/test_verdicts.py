"""The verdict: by cells that are alike, saying what they are compared with; withheld where codes tell too little."""

from __future__ import annotations

import pytest

from clipq.drifting import Drift, page
from clipq.drifting.comparing import Cell, Search
from clipq.drifting.verdicts import Known, least, verdict

OLD, NEW = Search("old", "old", "index"), Search("new", "new", "sample", "text")


def cell(value, index="old", scope="index", of="image", rows=5000, aligned=False, at=10, reference=OLD):  # noqa: PLR0913
    found = {at: (value, value - 0.005, value + 0.005)}
    return Cell(Search("new", index, scope, of, aligned), reference, 500, rows, found, found, found[at])


def sampled(old, mixed, again, aligned=False):
    """As the pictures of a sample of 500 find."""
    inside = {"scope": "sample", "rows": 500}
    return [
        cell(old, **inside, aligned=aligned),
        cell(mixed, "mixed", **inside, aligned=aligned),
        cell(again, "new", **inside, aligned=aligned),
    ]


def texts(value, index="old", reference=NEW):
    scope = "sample" if reference is NEW else "index"
    return cell(value, index, scope, "text", 500 if reference is NEW else 5000, reference=reference)


@pytest.mark.parametrize(
    ("whole", "sample", "answer"),
    [
        (0.97, (0.98, 0.96, 0.8), "keep"),
        (0.93, (0.96, 0.955, 0.95), "keep"),  # of the sample, embedding again would be no better
        (0.93, (0.96, 0.94, 0.95), "re-embed"),  # rows of both are worse than that
        (0.96, (0.97, 0.93, 0.94), "re-embed"),
        (0.94, (0.99, 0.985, 0.99), "re-embed"),  # 0.94 of all rows is not less than 0.99 of 500
        (0.8, (0.8, 0.8, 0.1), "re-embed"),
    ],
)
def test_embedding_again_is_judged_among_as_many_rows(whole, sample, answer):
    found = verdict([cell(whole), *sampled(*sample)])
    assert found.answer == answer
    assert "on an index embedded again" not in found.sentence
    if answer == "keep" and whole < 0.95:
        assert "of the 500 rows that both models embedded, " in found.sentence


def test_what_is_said_of_rows_of_both_is_said_of_the_sample():
    assert verdict([cell(0.98), *sampled(0.99, 0.97, 0.9)]).sentence == (
        "keep the index: new pictures find 97.0 % (96.5 to 97.5) of the old first ten where half of 500 sampled rows "
        "are new"
    )


def test_texts_are_compared_with_what_they_are_compared_with():
    """New texts on new vectors are no old answers, and embedding again gives all of them."""
    cells = [cell(0.98), *sampled(0.98, 0.98, 0.9)]
    found = verdict([*cells, texts(0.93)])
    assert found.answer == "re-embed"
    assert "of the first ten that they find among new vectors, of 500 sampled rows" in found.sentence
    assert "--old-texts FILE would tell" in found.sentence
    known = verdict([*cells, texts(0.93), texts(0.97, reference=Search("old", "old", "index", "text"))])
    assert known.answer == "keep" and "new texts find 97.0 % (96.5 to 97.5) of the old first ten" in known.sentence


CODES = Known(exact=False)


def test_codes_are_never_told_to_be_embedded_again():
    cells = [cell(0.6), *sampled(0.6, 0.6, 0.6), *sampled(0.97, 0.97, 0.97, aligned=True), cell(0.97, aligned=True)]
    found = verdict(cells, CODES)
    assert found.answer == "unsure" and "at least 60.0 %" in found.sentence and "--old-texts" in found.sentence
    assert verdict(cells).answer == "align"
    kept = verdict([cell(0.97), *sampled(0.98, 0.98, 0.6)], CODES)
    assert kept.answer == "keep" and "find at least 97.0 %" in kept.sentence
    assert verdict([cell(0.5, of="text")], CODES).sentence.endswith("the float vectors that it was made of")


@pytest.mark.parametrize(("value", "answer"), [(0.98, "keep"), (0.5, "re-embed")])
def test_old_texts_tell_what_codes_do_not(value, answer):
    told = texts(value, reference=Search("old", "old", "index", "text"))
    found = verdict([cell(0.6), *sampled(0.6, 0.6, 0.6), texts(0.6), told], CODES)
    assert found.answer == answer and found.sentence.endswith("by texts alone, as the index holds codes")


def test_only_codes_are_called_codes():
    cells = [cell(0.9), *sampled(0.9, 0.9, 0.9)]
    assert "; here, new pictures find" in verdict(cells, Known(same_space=True)).sentence
    assert "; of its codes, new pictures find" in verdict(cells, Known(same_space=True, exact=False)).sentence
    assert verdict([cell(0.99)], Known(same_space=True)).sentence.endswith("space as the model")


def test_a_small_index_is_not_said_to_have_a_first_ten():
    assert "of the old nearest row" in verdict([cell(0.99, at=1)]).sentence
    assert least([cell(0.9, at=100)], False) is None


@pytest.mark.parametrize(("matched", "rows", "inputs", "few"), [(40, 100, 100, True), (40, 100, 50, False)])
def test_few_rows_that_are_found_are_told(matched, rows, inputs, few):
    data = {"source": "photos", "tower": "image", "inputs": inputs, "matched": matched, "matched_by": "path"}
    counts = {"sample": 30, "texts": 0, "broken": {}}
    old = {"path": "a", "kind": "b", "rows": rows, "width": 8, "exact": True}
    new = {"name": "c", "precision": {"image": "int8"}, "fingerprint": "d"}
    found = Drift(old, new, {**data, **counts}, {}, (cell(0.97, at=1),))
    assert found.few_matched is few
    shown = page(found)
    assert f"40 of 100 rows are of the {inputs} images, by path" in shown
    assert ("Only 40 of 100 rows" in shown) is few and "overlap@1 of new pictures" in shown
