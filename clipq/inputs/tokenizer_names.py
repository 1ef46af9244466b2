"""From the name of a tokenizer to the tokenizer: an architecture of open_clip, a folder, or an id of the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, DownloadError, unknown_name
from .tokenization import describe_tokenizer
from .tokenizer_files import TokenizerSpec

_HUB = "hf-hub:"


def tokenizer_named(name: str | os.PathLike[str], context_length: int) -> TokenizerSpec:
    """The tokenizer that `name` says, for texts of `context_length` tokens.

    A folder: the transformers tokenizer in it. A name: that of the open_clip architecture. "hf-hub:owner/name" or
    "owner/name": a transformers tokenizer of the hub, the only ones for which the network is asked.
    Raises `CheckpointError`, `DownloadError` or `UnknownNameError`.
    """
    if Path(name).is_dir():
        return describe_tokenizer(_transformers(str(name), local_files_only=True), context_length)
    if _is_path(name):
        raise CheckpointError(f"tokenizer={str(name)!r} is no folder; give one with a tokenizer.json, or a name.")
    if name.startswith(_HUB) or name.count("/") == 1:
        return describe_tokenizer(_transformers(name.removeprefix(_HUB)), context_length)
    return describe_tokenizer(_of_architecture(name, context_length), context_length)


def _is_path(name: str | os.PathLike[str]) -> bool:
    return not isinstance(name, str) or name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1


def _of_architecture(name: str, context_length: int) -> Any:
    import open_clip

    if name not in open_clip.list_models():
        hint = "A folder, or an id of the hub (owner/name), is allowed too."
        raise unknown_name("tokenizer", name, open_clip.list_models(), hint)
    if hub_id := open_clip.get_model_config(name)["text_cfg"].get("hf_tokenizer_name"):
        raise CheckpointError(
            f"the tokenizer of {name} is not part of open_clip; tokenizer={hub_id!r} fetches it from the hub, or give "
            "a folder that holds it."
        )
    return open_clip.get_tokenizer(name, context_length=context_length)


def _transformers(name: str, **options: Any) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # the border to a library that reads whatever is in the folder
        kind = CheckpointError if options else DownloadError
        raise kind(f"there is no tokenizer of transformers in {name!r}: {error}") from error
