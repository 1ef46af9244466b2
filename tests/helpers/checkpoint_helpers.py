"""Small models to save, and a forger that changes a file's header or data and seals it again with valid hashes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import build, config
from torch import Tensor

import clipq
from clipq.errors import CheckpointError
from clipq.files.checkpoints import read
from clipq.files.header import CONFIG_KEY, DATA_HASH_KEY, HEADER_HASH_KEY, NO_HASH, seal
from clipq.inputs.tokenization import describe_tokenizer
from clipq.inputs.tokenizer_files import TokenizerSpec
from clipq.models import Model

IMAGE_ONLY = "transformers ViT"
TWO_TOWERS = "transformers CLIP"
OPEN_CLIP = "open_clip CLIP"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "cat", "dog", "##s", "!")


def model(name: str = TWO_TOWERS, precision: Any = "int8", **options: Any) -> Model:
    """The tiny model `name` in `precision`; options go to `Model`, "fallback" to `quantize`."""
    fallback = options.pop("fallback", None)
    return clipq.quantize(Model(build(name), config=config(name), **options), precision, fallback=fallback)


def embeddings(model: Model) -> list[Tensor]:
    """What the towers make of two fixed images and texts."""
    torch.manual_seed(1)
    pixels = torch.randn(2, *model.host.pixel_shape(model.module))
    if model.towers == ("image",):
        return [model.encode_image(pixels)]
    tokens = torch.randint(2, 90, (2, model.host.context_length(model.module)))
    tokens[:, -1] = 99 if model.host.name == "transformers" else 49407
    return [model.encode_image(pixels), model.encode_text(tokens)]


def assert_same(one: Model, other: Model) -> None:
    """Bit-equal embeddings, and everything else that a file keeps."""
    for a, b in zip(embeddings(one), embeddings(other), strict=True):
        assert a.isfinite().all()
        assert torch.equal(a, b)
    assert one.fingerprint() == other.fingerprint()
    assert one.precision == other.precision
    assert one.recipe == other.recipe
    assert one.preprocessing == other.preprocessing
    assert one.source == other.source
    assert one.tokenizer_spec == other.tokenizer_spec


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a file and its data."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def join(path: Path, header: bytes, data: bytes) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def forge(path: Path, target: Path, change: Callable[[dict[str, Any], bytearray], None]) -> Path:
    """Copy a file to `target` with its header and data changed in place by `change`, and with valid hashes."""
    header, data = split(path)
    data = bytearray(data)
    header["__metadata__"] |= {DATA_HASH_KEY: NO_HASH, HEADER_HASH_KEY: NO_HASH}
    change(header, data)
    join(target, json.dumps(header, separators=(",", ":")).encode(), bytes(data))
    seal(target)
    return target


def forge_config(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """As `forge`, for clipq's own part of the header."""

    def changed(header: dict[str, Any], data: bytearray) -> None:
        values = json.loads(header["__metadata__"][CONFIG_KEY])
        change(values)
        header["__metadata__"][CONFIG_KEY] = json.dumps(values)

    return forge(path, target, changed)


def hf_tokenizer() -> Any:
    """A small transformers tokenizer: BERT's word pieces over `WORDS`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **{f"{key}_token": name for key, name in names.items()})


def tokenizer_spec(context_length: int = 16) -> TokenizerSpec:
    return describe_tokenizer(hf_tokenizer(), context_length)


def refused(path: Path, *words: str) -> None:
    """Reading `path` gives one typed error that names it and `words`, and leaves nothing behind."""
    beside = sorted(path.parent.iterdir())
    with pytest.raises(CheckpointError) as caught:
        read(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert sorted(path.parent.iterdir()) == beside
