"""CLIP's tokens without open_clip: the ids of open_clip's own tokenizer."""

from __future__ import annotations

import random
import unicodedata

import ftfy
import numpy as np
import pytest
from open_clip.tokenizer import _tokenizer as hosts
from open_clip.tokenizer import get_clean_fn
from tokenizer_cases import texts

from clipq.errors import CheckpointError, UnknownNameError
from clipq.inputs.tokenization import build_tokenizer
from clipq.inputs.tokenizer_files import TokenizerSpec
from clipq.runtime.cleaning import CLEANERS, fixed
from clipq.runtime.clip_tokens import END_OF_TEXT, START_OF_TEXT, BytePairs, words
from clipq.runtime.tokenizing import build_tokens

COUNT = 3000  # scripts/building/check_tokens.py compares as many as it is told


def both(**settings):
    """open_clip's tokenizer with these settings, and clipq's without it."""
    settings = {"kind": "open_clip", "context_length": 77, **settings}
    return build_tokenizer(TokenizerSpec(settings)), build_tokens(settings, {})


def assert_same_ids(theirs, ours, strings: list[str]) -> None:
    expected, found = theirs(strings).numpy(), ours(strings)
    assert found.dtype == np.int64 and found.shape == expected.shape
    for text, one, other in zip(strings, expected, found, strict=True):
        assert np.array_equal(one, other), repr(text)


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize", None])
def test_mixed_strings(clean):
    assert_same_ids(*both(clean=clean), texts(COUNT, seed=1 if clean is None else len(clean)))


@pytest.mark.parametrize("length", [1, 2, 3, 8, 500])
def test_texts_that_are_too_long_end_with_the_end(length):
    theirs, ours = both(context_length=length)
    strings = [*texts(50), "a cat " * 300, "x" * 5000, "", "&amp;" * 200, "\U0001f408" * 100, " "]
    assert_same_ids(theirs, ours, strings)
    assert (ours("a cat " * 300)[0, -1]) == END_OF_TEXT


def test_one_string_is_a_list_of_one():
    _, ours = both()
    assert np.array_equal(ours("a cat"), ours(["a cat"]))
    assert ours([]).shape == (0, 77)
    assert ours("")[0, :3].tolist() == [START_OF_TEXT, END_OF_TEXT, 0]


@pytest.mark.parametrize("reduction", ["", "simple", None])
def test_what_is_drawn_is_drawn_the_same(reduction):
    theirs, ours = both(context_length=8, reduction_mask=reduction)
    strings = texts(200, seed=9)
    random.seed(5)
    expected = theirs(strings).numpy()
    random.seed(5)
    assert np.array_equal(ours(strings), expected)


@pytest.mark.parametrize("reduction", ["random", "shuffle", "syntax"])
def test_what_torch_draws_is_refused(reduction):
    with pytest.raises(CheckpointError, match=rf"reduction_mask='{reduction}'; allowed: '', or 'simple'.*clipq.load"):
        build_tokens({"kind": "open_clip", "context_length": 8, "reduction_mask": reduction}, {})


def test_settings_are_checked():
    with pytest.raises(UnknownNameError, match="tokenizer"):
        build_tokens({"kind": "clip"}, {})
    with pytest.raises(CheckpointError, match="context_length"):
        build_tokens({"kind": "open_clip"}, {})
    with pytest.raises(CheckpointError, match="clean is 'rm'"):
        build_tokens({"kind": "open_clip", "context_length": 8, "clean": "rm"}, {})


def test_words_are_split_at_every_character():
    """Of those that this Python knows too: what is newer depends on the version of the package regex."""
    for start in range(0, 0x110000, 0x400):
        known = [chr(code) for code in range(start, start + 0x400)]
        known = [one for one in known if unicodedata.category(one) not in ("Cn", "Cs")]
        text = " ".join("".join(f"a{one}1 '{one}x{one}! {one}{one}" for one in known).split())
        assert words(text) == hosts.pat.findall(text), hex(start)


def test_a_piece_is_merged_only_after_its_own_pieces():
    """So that merging the best pair at once, wherever it is, and one by one from the left come to the same."""
    ranks = BytePairs()._ranks
    made = {pair.replace(" ", ""): rank for pair, rank in ranks.items()}
    assert len(made) == len(ranks) == 48894
    assert all(made.get(piece, -1) < rank for pair, rank in ranks.items() for piece in pair.split(" "))


def test_words_without_an_end_take_no_hours():
    draw = random.Random(0)
    letters = "".join(draw.choice("etaoinshrdlu") for _ in range(200_000))
    assert len(BytePairs().encode(letters)) > 50_000
    some = letters[:3000]
    assert BytePairs().encode(some) == hosts.encode(some)


def ascii_texts(count: int) -> list[str]:
    """All 128 characters, entities (named, numbered, broken, nested, in capitals), escapes and line breaks."""
    from html.entities import html5

    draw = random.Random(3)
    names = sorted({name.rstrip(";") for name in html5})
    parts = ["&am", "p;", "&#", "&#x", ";", "&", "<", "\r\n", "\r", "\n", "\x1b[", "\x1b[31m", "\x1b[0;1m", "m", "\x7f"]
    parts += ["&lt;", "&AMP;", "&#38;", "&#x26;", "&#59;", "&#1;", "&amp;amp;lt;", "&fjlig;", "&SOL;", "&SZLIG;", " "]
    kinds = (
        lambda: chr(draw.randrange(128)),
        lambda: draw.choice(parts),
        lambda: f"&{draw.choice(names)};",
        lambda: f"&{draw.choice(names)};".upper(),
        lambda: f"&{draw.choice(names)}",
        lambda: f"&#{draw.randrange(200)};",
        lambda: f"&#x{draw.randrange(130):x};",
    )
    return ["".join(draw.choice(kinds)() for _ in range(draw.randrange(12))) for _ in range(count)]


def test_ascii_is_mended_as_ftfy_mends_it(monkeypatch):
    cases = [(text, ftfy.fix_text(text)) for text in ascii_texts(20_000)]
    long = [("a" * 999_999 + "&amp;" + "b" * 7, None), ("&lt;\r" * 5 + "<\n&amp;", None)]
    cases += [(text, ftfy.fix_text(text)) for text, _ in long]
    monkeypatch.setattr(ftfy, "fix_text", lambda text: None)  # only for entities beyond ASCII
    wrong = [text for text, expected in cases if fixed(text) not in (expected, None)]
    assert wrong == []
    beyond = [text for text, expected in cases if fixed(text) is None]
    assert all("&" in text for text in beyond)
    assert len(beyond) < 0.9 * len(cases)


@pytest.mark.parametrize("name", sorted(CLEANERS))
def test_cleaning(name):
    theirs = get_clean_fn(name)
    for text in [*texts(COUNT, seed=7), *ascii_texts(COUNT)]:
        assert CLEANERS[name](text) == theirs(text), repr(text)
