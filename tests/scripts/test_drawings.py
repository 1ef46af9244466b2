"""The drawings that clipq-tiny is trained and measured on: names folded into concepts, captions, pictures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "eval" / "data" / "drawings.parquet"
CLASSES = ROOT / "eval" / "data" / "drawings.classes.txt"


def script(name: str):
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / "training" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawings():
    return script("drawings")


@pytest.fixture(scope="module")
def packing():
    return script("packing")


def icons_of(drawings, name: str, svg: dict, **other):
    return drawings.Icons(drawings.DrawingSet(name, "1.0.0", "MIT", "someone", ""), svg, **other)


@pytest.mark.parametrize(
    "same",
    [
        ("waving-hand", "waving-hand-light-skin-tone", "waving-hand-medium-dark-skin-tone", "waving-hand-tone3"),
        ("handshake", "handshake-light-skin-tone-dark-skin-tone"),
        ("woman-curly-hair", "woman-medium-skin-tone-curly-hair"),
        ("flag-france", "flag-for-france", "flag-for-flag-france"),
        ("man-running", "man-running-facing-right", "man-running-dark-skin-tone-facing-right"),
    ],
)
def test_one_concept_folds_to_one_name(drawings, same):
    assert {drawings.fold_name(name) for name in same} == {same[0]}


@pytest.mark.parametrize("name", ["light-skin-tone", "flag-in-hole", "right-facing-fist", "police-car-light"])
def test_names_that_only_look_like_variants_stay(drawings, name):
    assert drawings.fold_name(name, {name, "police-car"}) == name


def test_a_bare_suffix_is_a_tone_only_where_the_set_has_all_tones(drawings):
    names = {"elf", "elf-light", "elf-medium-dark", "traffic", "traffic-light"}
    assert drawings.split_tone("elf-light", names) == ("elf", "light")
    assert drawings.split_tone("elf-medium-dark", names) == ("elf", "medium-dark")
    assert drawings.split_tone("traffic-light", names) == ("traffic-light", "")


def test_code_points_fold_over_tones_and_presentation(drawings):
    assert drawings.fold_code("1f44b-1f3fd") == "1f44b"
    assert drawings.fold_code("1f9d1-1f3fb-200d-1f9bd-200d-27a1-fe0f") == "1f9d1-200d-1f9bd"


def test_concepts_fold_by_picture_code_and_alias(drawings):
    reference = icons_of(
        drawings,
        "reference",
        {"flag-norway": "<a/>", "flag-bouvet-island": "<a/>", "cricket": "<b/>", "cricket-game": "<c/>"},
        codes={"1f1f3": "flag-norway", "1f997": "cricket", "1f3cf": "cricket-game"},
    )
    other = icons_of(
        drawings, "other", {"insect": "<d/>"}, codes={"1f997": "insect"}, aliases={"cricket": "cricket-game"}
    )
    concepts = drawings.fold_concepts(reference, [other])
    assert concepts.find("flag-bouvet-island") == "flag-norway"
    assert concepts.find("insect") == "cricket"
    assert concepts.find("cricket") != concepts.find("cricket-game")  # an alias joins no two that have pictures


def test_loose_names_find_concepts_or_nothing(drawings):
    reference = icons_of(drawings, "reference", {"beer-mug": "", "flag-japan": "", "bear-face": ""})
    concepts = drawings.fold_concepts(reference, [])
    loose = icons_of(drawings, "streamline-emojis", {"beermug": "", "japan": "", "bear-2": "", "unheard-of": ""})
    assert drawings.loose_names(loose, concepts) == {
        "beermug": "beer-mug",
        "japan": "flag-japan",
        "bear-2": "bear-face",
    }


def test_drawings_of_a_set_leave_out_pairs_of_tones(drawings):
    icons = icons_of(
        drawings,
        "some",
        {"handshake": "a", "handshake-dark-skin-tone": "b", "handshake-light-skin-tone-dark-skin-tone": "c"},
        mirrored={"ekahsdnah": "handshake"},
    )
    found = {(d.concept, d.tone, d.mirror) for d in drawings.drawings_of(icons, drawings.fold_concepts(icons, []))}
    assert found == {("handshake", "", False), ("handshake", "dark", False), ("ekahsdnah", "", True)}


def test_captions_hold_the_name_as_words(drawings):
    assert drawings.words("flag-united-states") == "flag of united states"
    assert drawings.words("flag-in-hole") == "flag in hole"
    assert drawings.captions("hot-dog", ["{c}", "a drawing of {c}"]) == ["hot dog", "a drawing of hot dog"]


def test_only_what_has_no_direction_is_mirrored(drawings):
    assert drawings.can_flip("elephant")
    assert not any(map(drawings.can_flip, ["left-arrow", "flag-japan", "keycap-2", "one-thirty", "a-button"]))


def test_packed_pictures_come_back_and_pack_the_same_again(drawings, packing, tmp_path):
    pixels = np.zeros((2, 24, 24, 4), np.uint8)
    pixels[1, 6:18, 6:18] = 200, 30, 60, 255
    for name in ("one", "two"):
        packing.write_parquet(tmp_path / name, ((drawings.on_white(p), i) for i, p in enumerate(pixels)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    pictures, labels = packing.read_parquet(tmp_path / "one")
    assert labels == [0, 1]
    assert all(np.array_equal(got, drawings.on_white(p)) for got, p in zip(pictures, pixels, strict=True))
    assert pictures[1].getpixel((0, 0)) == (255, 255, 255)


def test_the_shipped_pictures_have_every_class_once(packing):
    classes = CLASSES.read_text(encoding="utf-8").splitlines()
    pictures, labels = packing.read_parquet(PICTURES)
    assert len(pictures) == len(classes) == len(set(classes))
    assert sorted(labels) == list(range(len(classes)))
    assert {picture.size for picture in pictures} == {(224, 224)}
    assert PICTURES.stat().st_size < 5_000_000
