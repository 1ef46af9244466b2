"""open_clip's Hugging Face text towers: their configuration travels with the model, so that no hub is asked for it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import CheckpointError

TEXT_CONFIG = "hf_text_config"
"""The key beside open_clip's own configuration: the text tower's, as transformers writes it."""
NOT_OPEN_CLIPS = ("arch", TEXT_CONFIG)
"""The keys of a configuration that open_clip's classes do not take."""

_NAME = "hf_model_name"
_CODE = ("dtype", "torch_dtype", "auto_map", "quantization_config", "_name_or_path", "name_or_path")


def with_text_config(module: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the configuration of the Hugging Face text tower of `module`; as it is for all other models.

    One that a file had stays as it is: other versions of transformers write other defaults into theirs.
    """
    text = config.get("text_cfg")
    if TEXT_CONFIG in config:
        return dict(config)
    settings = getattr(getattr(module, "text", None), "config", None)
    if not (isinstance(text, Mapping) and text.get(_NAME) and hasattr(settings, "to_dict")):
        return dict(config)
    return {**config, TEXT_CONFIG: without_code(json.loads(json.dumps(settings.to_dict(), default=str)))}


@contextmanager
def text_tower_at_hand(text: dict[str, Any], config: Mapping[str, Any] | None) -> Iterator[str | None]:
    """Within, the `text_cfg` of an open_clip model names a folder of this machine instead of the repository it yields.

    `config`: what `with_text_config` kept; without it the hub's cache must have it. Raises `CheckpointError` if not.
    """
    name = text.get(_NAME)
    if not name:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(_found(name, config)), "utf-8")
        text[_NAME] = folder
        yield name


def _found(name: Any, config: Any) -> dict[str, Any]:
    from transformers import AutoConfig

    if config is not None:
        if not isinstance(config, Mapping):
            raise CheckpointError(f"its {TEXT_CONFIG!r} is no table.")
        return without_code(config)
    try:
        return without_code(AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False).to_dict())
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"the configuration of its text tower {name!r} is neither in the file (clipq before 0.3 did not keep it) "
            "nor in the hub's cache, and a local file asks no network. Run "
            f"transformers.AutoConfig.from_pretrained({name!r}) once, load the file, and save it again."
        ) from error


def without_code(values: Any) -> Any:
    """A configuration of transformers without what chooses code to run, a dtype, or a place that is not this file."""
    if isinstance(values, list):
        return [without_code(value) for value in values]
    if not isinstance(values, Mapping):
        return values
    return {k: without_code(v) for k, v in values.items() if k not in _CODE and not k.endswith("implementation")}
