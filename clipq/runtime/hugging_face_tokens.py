"""A tokenizer of transformers from its tokenizer.json and tokenizer_config.json, with the package `tokenizers` alone.

transformers 5 takes only the vocabulary of a tokenizer.json where a class has pipelines of its own (`CLIPTokenizer`,
`T5Tokenizer`, ...), and builds them anew. What its `save_pretrained` wrote holds the same pipelines; a file where they
differ would make other ids there than here, and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, first_line
from .refusals import refused

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Encode = Callable[[str], list[int]]
"""From one text to its ids."""

_WHAT = "tokenizer of kind 'transformers'"
_FILE, _CONFIG, _SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class _Class:
    """What a class of transformers sets itself: components and model of its tokenizer, special tokens, padding."""

    parts: Callable[[Tokenizer, Mapping[str, Any]], Mapping[str, Any]]
    model: Mapping[str, Any]
    tokens: Mapping[str, str]
    padding_side: str = "right"


def build_encode(
    files: Mapping[str, str], context_length: int, strip_sep_token: bool = False, class_last: bool = False
) -> Encode:
    """The function from a text to exactly `context_length` ids, by the tokenizer in `files`.

    strip_sep_token, class_last: open_clip's `strip_sep_token`, and its tokenizer_mode="clips".
    Raises `CheckpointError` for files that make no tokenizer, or one that transformers would change.
    """
    tokenizer, config = _read(files)
    known = _known_class(config)
    config = {**_defaults(tokenizer, known), **config}
    _check_pipelines(tokenizer, config, known)
    _check_added(tokenizer, config)
    ids = {name: tokenizer.token_to_id(_text(config[name])) for name in _NAMED if config.get(name)}
    needed = ["pad_token", *(["sep_token"] if strip_sep_token else [])]
    needed += ["bos_token", "eos_token", "cls_token"] if class_last else []
    if missing := [name for name in needed if ids.get(name) is None]:
        raise CheckpointError(f"the {_WHAT} cannot be built: its files name no {missing[0]} of its vocabulary.")
    tokenizer.encode_special_tokens = bool(config.get("split_special_tokens"))
    if class_last:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return lambda text: _class_last(tokenizer.encode(text, add_special_tokens=False).ids, context_length, ids)
    _fix_length(tokenizer, config, context_length)
    stripped = ids["sep_token"] if strip_sep_token else None
    encode = lambda text: tokenizer.encode(text).ids  # noqa: E731
    _try(encode, context_length)
    return encode if stripped is None else lambda text: [0 if id == stripped else id for id in encode(text)]


def _read(files: Mapping[str, str]) -> tuple[Tokenizer, dict[str, Any]]:
    from tokenizers import Tokenizer

    if _FILE not in files:
        raise refused(_WHAT, "files", sorted(files), f"files with a {_FILE}, as transformers' fast tokenizers save")
    try:
        config = json.loads(files.get(_CONFIG, "{}"))
        if "added_tokens_decoder" not in config:
            config |= json.loads(files.get(_SPECIAL, "{}"))
        return Tokenizer.from_str(files[_FILE]), config
    except Exception as error:  # the border to a library that reads whatever is in the file
        raise CheckpointError(f"the {_WHAT} cannot be built: {first_line(error)}") from error


def _known_class(config: Mapping[str, Any]) -> _Class | None:
    """What the class in the configuration sets itself; None where it only reads tokenizer.json."""
    name = config.get("tokenizer_class")
    plain = name.removesuffix("Fast") if isinstance(name, str) else None
    if plain in _GENERIC:
        return None
    if plain not in _CLASSES:
        raise refused(_WHAT, "tokenizer_class", name, ", ".join([*_CLASSES, *_GENERIC]))
    return _CLASSES[plain]


def _defaults(tokenizer: Tokenizer, known: _Class | None) -> dict[str, Any]:
    """What holds where the configuration says nothing: tokenizer.json's padding and truncation, before the class's."""
    padding, truncation = tokenizer.padding or {}, tokenizer.truncation or {}
    found = {"padding_side": padding.get("direction"), "truncation_side": truncation.get("direction")}
    if known is None:
        found["pad_token"] = padding.get("pad_token")
    sides = {"padding_side": known.padding_side if known else "right", "truncation_side": "right"}
    return {**sides, **(known.tokens if known else {}), **{key: value for key, value in found.items() if value}}


def _check_pipelines(tokenizer: Tokenizer, config: Mapping[str, Any], known: _Class | None) -> None:
    """Raise `CheckpointError` if the class in the configuration would build another tokenizer than tokenizer.json's."""
    if known is None:
        return
    name = config["tokenizer_class"]
    for part, expected in known.parts(tokenizer, config).items():
        if _state(getattr(tokenizer, part)) != _state(expected):
            raise refused(f"{_WHAT}, {name}", part, getattr(tokenizer, part), f"{expected}, as transformers 5 makes it")
    for key, value in known.model.items():
        if (found := getattr(tokenizer.model, key, None)) != value:
            raise refused(f"{_WHAT}, {name}", f"model.{key}", found, f"{value!r}, as transformers 5 makes it")


def _state(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())


def _text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, Mapping) else token


def _check_added(tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` if the configuration names a token that transformers would add to tokenizer.json's."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for token in _special_tokens(config):
        if token is not None and token not in added:
            raise refused(_WHAT, "special token", token, f"those among the added_tokens of {_FILE}; save it again")


def _special_tokens(config: Mapping[str, Any]) -> Iterator[str | None]:
    yield from (_text(config.get(name)) for name in _NAMED)
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or ()
    yield from map(_text, extra.values() if isinstance(extra, Mapping) else extra)
    yield from map(_text, (config.get("added_tokens_decoder") or {}).values())


def _fix_length(tokenizer: Tokenizer, config: Mapping[str, Any], length: int) -> None:
    """Texts become `length` ids: cut, and padded, at the sides that the files say."""
    for key in ("padding_side", "truncation_side"):
        if config[key] not in ("left", "right"):
            raise refused(_WHAT, key, config[key], "left, right")
    pad = _text(config["pad_token"])
    try:
        tokenizer.enable_truncation(length, stride=0, strategy="longest_first", direction=config["truncation_side"])
        where = {"direction": config["padding_side"], "length": length}
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad, **where)
    except Exception as error:  # a length below the tokens that are always there
        raise CheckpointError(f"the {_WHAT} cannot be built: {first_line(error)}") from error


def _try(encode: Encode, length: int) -> None:
    if (found := len(encode("a"))) != length:
        raise CheckpointError(f"the {_WHAT} cannot be built: it makes {found} ids of a text, not {length}.")


def _class_last(tokens: list[int], length: int, ids: Mapping[str, int | None]) -> list[int]:
    """open_clip's CLIPS: start, text, end, padding, and the class token at the very end."""
    tokens = [ids["bos_token"], *tokens[: length - 3], ids["eos_token"]][: length - 1]
    return [*tokens, *[ids["pad_token"]] * (length - 1 - len(tokens)), ids["cls_token"]]


def _clip(tokenizer: Tokenizer, config: Mapping[str, Any]) -> Mapping[str, Any]:
    from tokenizers import Regex, normalizers, pre_tokenizers, processors

    tags = r"<\|startoftext\|>|<\|endoftext\|>"
    split = Regex(rf"{tags}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+")
    folded = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    words = [pre_tokenizers.Split(split, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ends = [(token, tokenizer.token_to_id(token)) for token in (_text(config[f"{end}os_token"]) for end in "eb")]
    return {
        "normalizer": normalizers.Sequence(folded),
        "pre_tokenizer": pre_tokenizers.Sequence(words),
        "post_processor": processors.RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False),
    }


def _t5(tokenizer: Tokenizer, config: Mapping[str, Any]) -> Mapping[str, Any]:
    from tokenizers import pre_tokenizers, processors

    pieces = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    ended = {"single": ["$A", "</s>"], "pair": ["$A", "</s>", "$B", "</s>"]}
    last = ("</s>", tokenizer.token_to_id(_text(config["eos_token"])))
    state = _state(tokenizer.normalizer)  # a table of its own, where it has one
    own = tokenizer.normalizer if state is not None and state["type"] == "Precompiled" else None
    return {
        "normalizer": own,
        "pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pieces]),
        "post_processor": processors.TemplateProcessing(**ended, special_tokens=[last]),
    }


def _gemma(tokenizer: Tokenizer, config: Mapping[str, Any]) -> Mapping[str, Any]:
    from tokenizers import normalizers, pre_tokenizers

    return {
        "normalizer": normalizers.Replace(" ", "\u2581"),
        "pre_tokenizer": pre_tokenizers.Split(" ", "merged_with_previous", invert=False),
    }


def _siglip2(tokenizer: Tokenizer, config: Mapping[str, Any]) -> Mapping[str, Any]:
    from tokenizers import normalizers

    parts = _gemma(tokenizer, config)
    return {**parts, "normalizer": normalizers.Sequence([normalizers.Lowercase(), parts["normalizer"]])}


def _bert(tokenizer: Tokenizer, config: Mapping[str, Any]) -> Mapping[str, Any]:
    from tokenizers import normalizers, pre_tokenizers, processors

    options = {"lowercase": config.get("do_lower_case", True), "strip_accents": config.get("strip_accents")}
    chinese = config.get("tokenize_chinese_chars", True)
    first, last = (_text(config[name]) for name in ("cls_token", "sep_token"))
    single = f"{first}:0 $A:0 {last}:0"
    return {
        "normalizer": normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=chinese, **options),
        "pre_tokenizer": pre_tokenizers.BertPreTokenizer(),
        "post_processor": processors.TemplateProcessing(
            single=single,
            pair=f"{single} $B:1 {last}:1",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
        ),
    }


_PIECES = {"fuse_unk": True, "byte_fallback": True, "dropout": None}
_BYTES = {"fuse_unk": False, "byte_fallback": False, "dropout": None, "end_of_word_suffix": "</w>"}
_WORDS = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
_OF_CLIP = {
    "bos_token": "<|startoftext|>",
    **dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
}
_OF_T5 = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_OF_GEMMA = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "unk", "pad", "mask")}
_OF_BERT = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "unk", "pad", "mask")}
_GENERIC = ("TokenizersBackend", "PreTrainedTokenizer")  # the last with "Fast" behind: transformers 4's name
_CLASSES: Mapping[str, _Class] = {
    "CLIPTokenizer": _Class(_clip, _BYTES, _OF_CLIP),
    "T5Tokenizer": _Class(_t5, {}, _OF_T5),
    "GemmaTokenizer": _Class(_gemma, _PIECES, _OF_GEMMA, "left"),
    "Siglip2Tokenizer": _Class(_siglip2, _PIECES, _OF_GEMMA, "left"),
    "BertTokenizer": _Class(_bert, _WORDS, _OF_BERT),
}
