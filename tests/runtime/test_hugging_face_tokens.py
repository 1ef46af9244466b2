"""transformers' tokenizers without transformers: the ids of AutoTokenizer, and of open_clip's wrapper of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizer_cases
from checkpoint_helpers import hf_tokenizer, tokenizer_spec

from clipq.errors import CheckpointError
from clipq.inputs.tokenization import build_tokenizer, describe_tokenizer
from clipq.inputs.tokenizer_files import TokenizerSpec
from clipq.runtime.tokenizing import build_tokens

COUNT = 1000


def other_sides():
    return tokenizer_cases.gemma(padding_side="right", truncation_side="left")


def used_before():
    """Truncation and padding of the last call are saved in tokenizer.json."""
    tokenizer = hf_tokenizer()
    tokenizer(["a cat"], padding="max_length", max_length=5, truncation=True)
    return tokenizer


def with_extra_tokens():
    tokenizer = hf_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<b>", "'s"], "bos_token": "[CLS]", "eos_token": "[SEP]"})
    tokenizer.add_tokens(["photo", "12345"])
    return tokenizer


def with_ends():
    """Gemma as SigLIP 2 has it: the end of the text is a token."""
    from tokenizers import processors

    tokenizer = tokenizer_cases.gemma("Siglip2Tokenizer")
    ended = {"single": "$A:0 <eos>:0", "pair": "$A:0 <eos>:0 $B:1 <eos>:1"}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(**ended, special_tokens=[("<eos>", 1)])
    return tokenizer


MADE = {
    "word pieces": hf_tokenizer,
    "with extra tokens": with_extra_tokens,
    "used before": used_before,
    "CLIP": tokenizer_cases.clip,
    "T5": tokenizer_cases.t5,
    "Gemma": tokenizer_cases.gemma,
    "Gemma, other sides": other_sides,
    "SigLIP 2": with_ends,
    "BERT": tokenizer_cases.bert,
    "BERT, cased": lambda: tokenizer_cases.bert(lower=False),
}


@pytest.fixture(scope="module", params=MADE.values(), ids=MADE)
def spec(request) -> TokenizerSpec:
    made = describe_tokenizer(request.param(), 16)
    return TokenizerSpec(made.settings, json.loads(json.dumps(made.files)))


def assert_same_ids(spec: TokenizerSpec, strings: list[str]) -> None:
    expected, found = build_tokenizer(spec)(strings).numpy(), build_tokens(spec.settings, spec.files)(strings)
    assert found.dtype == np.int64 and found.shape == expected.shape
    for text, one, other in zip(strings, expected, found, strict=True):
        assert np.array_equal(one, other), repr(text)


def test_mixed_strings(spec):
    assert_same_ids(spec, tokenizer_cases.texts(COUNT, seed=4))


@pytest.mark.parametrize("length", [4, 64])
def test_lengths(spec, length):
    assert_same_ids(TokenizerSpec({**spec.settings, "context_length": length}, spec.files), tokenizer_cases.texts(200))


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_open_clips_wrapper(spec, clean):
    settings = {**spec.settings, "clean": clean, "strip_sep_token": False, "tokenizer_mode": ""}
    assert_same_ids(TokenizerSpec(settings, spec.files), tokenizer_cases.texts(300, seed=5))


def test_the_separator_becomes_nothing():
    settings = {**tokenizer_spec().settings, "clean": "whitespace", "strip_sep_token": True}
    assert_same_ids(TokenizerSpec(settings, tokenizer_spec().files), tokenizer_cases.texts(300, seed=6))


@pytest.mark.parametrize("length", [4, 12])
def test_the_class_token_at_the_end(length):
    made = describe_tokenizer(with_extra_tokens(), length)
    settings = {**made.settings, "clean": "whitespace", "tokenizer_mode": "clips"}
    assert_same_ids(TokenizerSpec(settings, made.files), tokenizer_cases.texts(300, seed=7))


def changed(name: str = "tokenizer_config.json", made: TokenizerSpec | None = None, **values) -> dict[str, str]:
    files = (made or tokenizer_spec()).files
    return {**files, name: json.dumps({**json.loads(files[name]), **values})}


def other_class() -> dict[str, str]:
    return changed(tokenizer_class="RobertaTokenizer")


def other_pipeline() -> dict[str, str]:
    return changed("tokenizer.json", describe_tokenizer(tokenizer_cases.clip(), 16), normalizer={"type": "NFKC"})


def other_model() -> dict[str, str]:
    made = describe_tokenizer(tokenizer_cases.gemma(), 16)
    model = {**json.loads(made.files["tokenizer.json"])["model"], "byte_fallback": False}
    return changed("tokenizer.json", made, model=model)


def test_the_cases_differ_where_they_should():
    """Padding before and behind, and sentencepiece's table of characters."""

    def ids(made, text):
        spec = describe_tokenizer(made, 8)
        return build_tokens(spec.settings, spec.files)(text)[0].tolist()

    assert ids(tokenizer_cases.gemma(), "a")[0] == ids(other_sides(), "a")[-1] == 0
    assert ids(other_sides(), "a")[0] != 0
    assert ids(tokenizer_cases.t5(), "A cat") == ids(tokenizer_cases.t5(), "a cat")
    assert ids(tokenizer_cases.t5(), "A Cat") != ids(tokenizer_cases.t5(), "a cat")


REFUSED = {
    "no tokenizer.json": (
        lambda: {"vocab.json": "{}"},
        r"files=\['vocab.json'\]; allowed: files with a tokenizer.json",
    ),
    "no files": (dict, r"files=\[\]"),
    "a broken file": (lambda: {"tokenizer.json": "{"}, "cannot be built"),
    "another class": (other_class, "tokenizer_class='RobertaTokenizer'; allowed: CLIPTokenizer, T5Tokenizer"),
    "no class": (lambda: changed(tokenizer_class=None), "tokenizer_class=None"),
    "a pipeline that is not the class's": (other_pipeline, "CLIPTokenizer.*normalizer=NFKC.*as transformers 5 makes"),
    "a model that is not the class's": (other_model, "model.byte_fallback=False; allowed: True"),
    "no token for padding": (lambda: changed(pad_token=None), "no pad_token"),
    "a token that is not in the vocabulary": (lambda: changed(mask_token="[NEW]"), r"special token='\[NEW\]'"),
    "no such side": (lambda: changed(padding_side="top"), "padding_side='top'; allowed: left, right"),
}


@pytest.mark.parametrize(("files", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(files, words):
    with pytest.raises(CheckpointError, match=words):
        build_tokens(tokenizer_spec().settings, files())


@pytest.mark.parametrize("key", ["strip_sep_token", "tokenizer_mode"])
def test_tokens_that_open_clip_would_need(key):
    made = describe_tokenizer(tokenizer_cases.t5(), 16)
    value = {"strip_sep_token": True, "tokenizer_mode": "clips"}[key]
    with pytest.raises(CheckpointError, match="name no (sep|bos)_token"):
        build_tokens({**made.settings, "clean": "lower", key: value}, made.files)
