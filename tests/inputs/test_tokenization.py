"""Tokenizers as data: the same ids after they were packed and unpacked."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from checkpoint_helpers import WORDS, hf_tokenizer, tokenizer_spec

from clipq.errors import CheckpointError, ClipqError, UnknownNameError
from clipq.inputs.tokenization import build_tokenizer, describe_tokenizer
from clipq.inputs.tokenizer_files import TokenizerSpec, check_tokenizer, unpack_files

TEXTS = ["A photo of a cat", "dogs!", "", "  a   photo\n of a_cat ", "a " * 100, "caf\u00e9 &amp; \U0001f408"]


def after_storage(spec: TokenizerSpec):
    """The tokenizer as a file keeps it: settings as JSON, files as bytes."""
    return build_tokenizer(TokenizerSpec(json.loads(json.dumps(spec.settings)), unpack_files(spec.pack())))


def assert_same_ids(tokenizer, spec: TokenizerSpec, length: int) -> None:
    rebuilt = after_storage(spec)
    for texts in (TEXTS, TEXTS[0], [TEXTS[-1]]):
        ids = rebuilt(texts)
        assert ids.dtype == torch.int64
        assert ids.shape == (1 if isinstance(texts, str) else len(texts), length)
        assert torch.equal(ids, tokenizer(texts))


@pytest.mark.parametrize("length", [77, 16])
@pytest.mark.parametrize("clean", ["lower", "canonicalize", "whitespace"])
def test_open_clips_own_tokenizer(clean, length):
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer(context_length=length, clean=clean)
    spec = describe_tokenizer(tokenizer, 5)
    assert spec.files == {}
    assert_same_ids(tokenizer, spec, length)


@pytest.mark.parametrize("name", ["simple", "random", "shuffle", "syntax", ""])
def test_how_open_clip_cuts_long_texts_is_kept(name):
    from open_clip import SimpleTokenizer

    spec = describe_tokenizer(SimpleTokenizer(context_length=16, reduction_mask=name), 16)
    rebuilt = after_storage(spec)
    assert spec.settings["reduction_mask"] == name
    assert describe_tokenizer(rebuilt, 16) == spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    hf_tokenizer().save_pretrained(path)
    return path


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("clean", ["lower", "canonicalize", "whitespace"])
def test_open_clips_wrapper_of_transformers_tokenizers(folder, clean, strip):
    from open_clip.tokenizer import HFTokenizer

    tokenizer = HFTokenizer(str(folder), context_length=12, clean=clean, strip_sep_token=strip)
    spec = describe_tokenizer(tokenizer, 77)
    assert (spec.settings["clean"], spec.settings["strip_sep_token"]) == (clean, strip)
    assert_same_ids(tokenizer, spec, 12)
    assert (WORDS.index("[SEP]") in tokenizer(TEXTS[0])) is not strip


def test_open_clips_other_mode_is_kept(folder):
    from open_clip.tokenizer import HFTokenizer

    tokenizer = HFTokenizer(str(folder), context_length=12, tokenizer_mode="clips")
    tokenizer.tokenizer.bos_token, tokenizer.tokenizer.eos_token = "[CLS]", "[SEP]"
    assert_same_ids(tokenizer, describe_tokenizer(tokenizer, 77), 12)


@pytest.mark.parametrize("length", [4, 16])
def test_a_tokenizer_of_transformers(length):
    tokenizer = hf_tokenizer()

    def expected(texts):
        texts = [texts] if isinstance(texts, str) else texts
        return tokenizer(texts, max_length=length, padding="max_length", truncation=True, return_tensors="pt").input_ids

    spec = describe_tokenizer(tokenizer, length)
    assert_same_ids(expected, spec, length)
    ids = after_storage(spec)("a cat")[0].tolist()
    assert ids[:4] == [WORDS.index(word) for word in ("[CLS]", "a", "cat", "[SEP]")]
    assert ids[4:] == [WORDS.index("[PAD]")] * (length - 4)


def test_packing_is_reproducible_and_small():
    spec = tokenizer_spec()
    assert set(spec.files) == {"tokenizer.json", "tokenizer_config.json"}
    assert spec.pack() == copy.deepcopy(spec).pack() == tokenizer_spec().pack()
    assert len(spec.pack()) < sum(map(len, spec.files.values()))
    assert unpack_files(spec.pack()) == spec.files


def test_another_kind_of_tokenizer_cannot_be_stored():
    with pytest.raises(CheckpointError, match="type function"):
        describe_tokenizer(lambda texts: texts, 77)


@pytest.mark.parametrize("kind", [None, "os", "Transformers", ["open_clip"], 3])
def test_unknown_kinds(kind):
    with pytest.raises(UnknownNameError, match="tokenizer"):
        build_tokenizer(TokenizerSpec({"kind": kind, "context_length": 77}))


@pytest.mark.parametrize("length", [None, 0, -1, 1 << 40, "77", 7.5, True])
def test_impossible_context_lengths(length):
    with pytest.raises(CheckpointError, match="context_length"):
        build_tokenizer(TokenizerSpec({"kind": "open_clip", "context_length": length}))


def without_padding() -> TokenizerSpec:
    files = tokenizer_spec().files
    config = {**json.loads(files["tokenizer_config.json"]), "pad_token": None}
    return TokenizerSpec(tokenizer_spec().settings, {**files, "tokenizer_config.json": json.dumps(config)})


SETTINGS = {
    "no token for padding": without_padding(),
    "no files": TokenizerSpec({"kind": "transformers", "context_length": 16}),
    "broken files": TokenizerSpec({"kind": "transformers", "context_length": 16}, {"tokenizer.json": "{"}),
    "unknown cleaning": TokenizerSpec({"kind": "open_clip", "context_length": 16, "clean": "rm"}),
    "unknown reduction": TokenizerSpec({"kind": "open_clip", "context_length": 16, "reduction_mask": "rm"}),
    "an option too many": TokenizerSpec({**tokenizer_spec().settings, "clean": "lower", "use_fast": object}, {}),
}

WRONG = {
    "strip_sep_token": ("no", 1, None),
    "clean": ("rm", True, ["lower"]),
    "tokenizer_mode": ("bert", 3),
    "context_length": (17, 0, "16", None, 1 << 40),
    "name_or_path": ("someone/tokenizer",),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_settings_of_a_wrong_type_are_refused_before_anything_is_built(key, value):
    settings = {**tokenizer_spec().settings, "strip_sep_token": False, "tokenizer_mode": ""}
    check_tokenizer(settings, 16)
    with pytest.raises(ClipqError, match=key):
        check_tokenizer({**settings, key: value}, 16)


@pytest.mark.parametrize("spec", SETTINGS.values(), ids=SETTINGS)
def test_settings_and_files_that_make_no_tokenizer(spec):
    with pytest.raises(ClipqError, match="cannot be built|; allowed: one of"):
        build_tokenizer(spec)


def test_code_of_others_is_not_run(tmp_path):
    spec = tokenizer_spec()
    config = json.loads(spec.files["tokenizer_config.json"])
    config["auto_map"] = {"AutoTokenizer": ["someone/code--tokenization.Tokenizer", None]}
    config["tokenizer_class"] = "SomeonesTokenizer"
    files = {**spec.files, "tokenizer_config.json": json.dumps(config)}
    try:
        tokenizer = build_tokenizer(TokenizerSpec(spec.settings, files))
    except CheckpointError:
        return
    assert torch.equal(tokenizer(TEXTS), build_tokenizer(spec)(TEXTS))
