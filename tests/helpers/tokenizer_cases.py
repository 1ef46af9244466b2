"""Small real tokenizers of transformers, trained on a few lines, and strings of every kind from a seed."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from typing import Any

LINES = [
    "a photo of a cat",
    "two dogs on the beach, one of them running",
    "the quick brown fox jumps over the lazy dog",
    "a blurry picture of the number 42",
    "caf\u00e9 cr\u00e8me br\u00fbl\u00e9e \u732b\u306e\u5199\u771f",
    "it's a painting that they'll love",
] * 20


def pieces(model: Any, trainer: Any, prepare: Callable[[Any], None]) -> dict[str, Any]:
    """The vocabulary (and merges) of a tokenizer trained on `LINES`."""
    import json

    from tokenizers import Tokenizer

    made = Tokenizer(model)
    prepare(made)
    made.train_from_iterator(LINES, trainer)
    found = json.loads(made.to_str())["model"]
    vocabulary = found["vocab"]
    return {"vocab": vocabulary, "merges": [tuple(merge) for merge in found.get("merges", ())]}


def clip() -> Any:
    from tokenizers import models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    def prepare(made: Any) -> None:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)

    special = ["<|startoftext|>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": 600, "special_tokens": special, "show_progress": False}
    trainer = trainers.BpeTrainer(**options, end_of_word_suffix="</w>", initial_alphabet=alphabet)
    return CLIPTokenizer(**pieces(models.BPE(end_of_word_suffix="</w>"), trainer, prepare))


def gemma(name: str = "GemmaTokenizer", **options: str) -> Any:
    import transformers
    from tokenizers import models, normalizers, trainers

    def prepare(made: Any) -> None:
        made.normalizer = normalizers.Replace(" ", "\u2581")

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    return getattr(transformers, name)(**pieces(models.BPE(), trainer, prepare), **options)


def folding_table() -> bytes:
    """A sentencepiece table (a double array of bytes, then what they become) that makes "A" an "a", and no more."""
    units, letter, leaf = [0] * 512, ord("A"), 0x100
    units[letter] = letter | 1 << 8 | leaf << 10  # its own label; something ends here; where
    units[letter ^ leaf] = 0  # at the first of the results
    return (4 * len(units)).to_bytes(4, "little") + b"".join(unit.to_bytes(4, "little") for unit in units) + b"a\0"


def t5() -> Any:
    from tokenizers import models, pre_tokenizers, trainers
    from transformers import T5Tokenizer

    def prepare(made: Any) -> None:
        made.pre_tokenizer = pre_tokenizers.Metaspace()

    options = {"special_tokens": ["<pad>", "</s>", "<unk>"], "unk_token": "<unk>", "show_progress": False}
    trainer = trainers.UnigramTrainer(vocab_size=200, **options)
    vocabulary = pieces(models.Unigram(), trainer, prepare)["vocab"]
    return T5Tokenizer(vocab=[tuple(item) for item in vocabulary], _spm_precompiled_charsmap=folding_table())


def bert(lower: bool = True) -> Any:
    from tokenizers import models, pre_tokenizers, trainers
    from transformers import BertTokenizer

    def prepare(made: Any) -> None:
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    model = models.WordPiece(unk_token="[UNK]")
    return BertTokenizer(vocab=pieces(model, trainer, prepare)["vocab"], do_lower_case=lower)


_ENTITIES = [
    *("&amp;", "&lt;", "&gt;", "&eacute;", "&EACUTE;", "&nbsp;", "&#39;", "&#x2019;", "&hellip", "&amp;amp;lt;"),
    *("&#0;", "&#xD800;", "&SZLIG;", "&NotAnEntity;", "&"),
]
_ODD = [
    *("<start_of_text>", "<end_of_text>", "<|startoftext|>", "<|endoftext|>", "</s>", "<pad>", "<eos>", "[SEP]"),
    *("<<end_of_text>", "<START_OF_TEXT>", "<extra_id_0>", "[MASK]", "</w>", "\u2581", "'s", "'LL", "'\u017f", "a_b"),
    *("\x00", "\x1b[31m", "\r\n", "\r", "\x85", "\u2028", "\u200b", "\ufeff", "\x7f", "\x1c", "\u0345", "\u3000"),
    *(
        "\U0001f408",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f1e9\U0001f1ea",
        "e\u0301",
        "\ufb01",
        "\u00df",
    ),
    *("\u00c3\u00a9", "\u00e2\u20ac\u2122", "\u732b", "\ud55c\uad6d", "\u0627\u0644", "\u0e20\u0e32\u0e1e", "\u0130"),
    *(
        "\u00bd",
        "\u2167",
        "12345",
        "3.14",
        "#@!?",
        "...",
        "\uff21\uff42",
        "\u201cquoted\u201d",
        "<b>",
        "http://a.b/c?d=e",
    ),
]
_WORDS = " ".join(LINES[:6]).split()


def _letter(draw: random.Random) -> str:
    """A character that Unicode 13 knows (what Python 3.10 has), not half of a pair."""
    while True:
        found = chr(draw.choice((draw.randrange(0x250), draw.randrange(0x3000), draw.randrange(0x11_0000))))
        if unicodedata.ucd_3_2_0.category(found) not in ("Cn", "Cs") or 0x1F300 <= ord(found) < 0x1F600:
            return found


def texts(count: int, seed: int = 0) -> list[str]:
    """Mixed strings: captions, entities, other scripts, controls, any characters at all, very long, empty."""
    draw = random.Random(seed)
    kinds = (
        lambda: draw.choice(_WORDS),
        lambda: draw.choice(_WORDS).upper(),
        lambda: draw.choice(_ENTITIES),
        lambda: draw.choice(_ODD),
        lambda: _letter(draw),
        lambda: "".join(_letter(draw) for _ in range(draw.randrange(6))),
        lambda: chr(draw.randrange(128)),
    )
    made = []
    for number in range(count):
        length = draw.randrange(200) if number % 50 == 0 else draw.randrange(16)
        allowed = kinds[: draw.randrange(1, len(kinds) + 1)]
        parts = [draw.choice(allowed)() for _ in range(length)]
        made.append(draw.choice(("", " ", " ", "  ")).join(parts))
    return made
