"""A tokenizer by its name: which names there are, and that a path never asks the network."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from tiny_processors import clip_processor

from clipq.errors import CheckpointError, UnknownNameError
from clipq.inputs.tokenization import build_tokenizer
from clipq.inputs.tokenizer_names import tokenizer_named


def test_an_architecture_of_open_clip():
    found = build_tokenizer(tokenizer_named("ViT-B-32", 16))
    assert torch.equal(found(["a cat"]), open_clip.SimpleTokenizer(context_length=16)(["a cat"]))


def test_a_folder(tmp_path):
    processor = clip_processor()
    processor.tokenizer.save_pretrained(tmp_path)
    theirs = processor.tokenizer(["a cat"], padding="max_length", max_length=16, return_tensors="pt").input_ids
    for name in (tmp_path, str(tmp_path)):
        assert torch.equal(build_tokenizer(tokenizer_named(name, 16))(["a cat"]), theirs)


def test_names_that_there_are_not(tmp_path):
    with pytest.raises(UnknownNameError, match=r"'ViT-B-31'. Did you mean 'ViT-B-32'.*folder.*owner/name"):
        tokenizer_named("ViT-B-31", 16)
    with pytest.raises(CheckpointError, match=r"ViT-B-16-SigLIP is not part.*tokenizer='timm/ViT-B-16-SigLIP'"):
        tokenizer_named("ViT-B-16-SigLIP", 16)
    with pytest.raises(CheckpointError, match="no tokenizer of transformers"):
        tokenizer_named(tmp_path, 16)


@pytest.mark.parametrize("path", ["./a/b", "/no/such", "~/b", "a/b/c", "a\\b", Path("owner/name")])
def test_a_path_that_is_no_folder_is_not_asked_for_on_the_hub(path):
    with pytest.raises(CheckpointError, match="is no folder"):
        tokenizer_named(path, 16)
