"""Float models from where users have them: open_clip's names, tags and folders; transformers' ids and folders."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ClipqError, DownloadError, unknown_name
from ..hosts.timm import known_trunk
from ..inputs.tokenization import describe_tokenizer
from ..inputs.tokenizer_files import TokenizerSpec
from ..models import Model
from ..zoo.offline import no_network
from ..zoo.registry import Entry, entries
from .completeness import check_complete, check_float


def load_open_clip(
    name: str,
    *,
    pretrained: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    entry: Entry | None = None,
) -> Model:
    """The fp32 model of open_clip called `name` (architecture, "ARCH/TAG", "hf-hub:...", "local-dir:..." or a folder).

    QuickGELU follows the tag (or the zoo's `entry`), because open_clip only warns where it does not fit.
    Raises `UnknownNameError`, `DownloadError` or `CheckpointError`.
    """
    import open_clip

    if Path(name).is_dir():
        name = f"local-dir:{name}"
    elif ":" not in name:
        name, pretrained = _arch_and_tag(name, pretrained)
    options: dict[str, Any] = {"pretrained": pretrained, "cache_dir": cache_dir and str(cache_dir)}
    if quick_gelu := _quick_gelu(name, pretrained, entry):
        options["force_quick_gelu"] = quick_gelu
    local = no_network() if name.startswith("local-dir:") else contextlib.nullcontext()
    with _quiet(), _as_clipq_errors(name, pretrained), local:
        if name.startswith("local-dir:"):
            _check_trunk(_open_clip_config(name, cache_dir))
        module = open_clip.create_model(name, precision="fp32", require_pretrained=True, **options).eval()
        config = _open_clip_config(name, cache_dir)
        tokenizer = _open_clip_tokenizer(name, cache_dir)
    if quick_gelu:
        config["quick_gelu"] = True
    tag = pretrained if pretrained in open_clip.list_pretrained_tags_by_model(name) else None
    source = {"arch": None if ":" in name else name, "tag": tag, "name": _natural(name, pretrained, entry)}
    if entry is not None:
        source |= {"base": entry.base, "licence": entry.licence}
    return Model(module, config=config, tokenizer=tokenizer, source=source)


def _check_trunk(config: dict[str, Any]) -> None:
    if trunk := config["vision_cfg"].get("timm_model_name"):
        known_trunk(trunk)  # timm would ask the hub for "hf-hub:..."


def _arch_and_tag(name: str, pretrained: str | None) -> tuple[str, str]:
    import open_clip

    arch, _, tag = name.partition("/")
    tag = pretrained or tag
    if arch not in open_clip.list_models():
        zoo = {known for entry in entries() for known in (entry.arch, entry.name)}
        raise unknown_name("model", name, zoo | set(open_clip.list_models()), "`clipq list` shows the zoo.")
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if not tag:
        raise unknown_name("pretrained tag", tag, tags, f"Give pretrained=TAG, a file of weights, or {arch!r}/TAG.")
    if tag not in tags and not Path(tag).is_file():
        raise unknown_name("pretrained tag", tag, tags, "A file of weights is allowed too; this is none.")
    return arch, tag


def _quick_gelu(name: str, pretrained: str | None, entry: Entry | None) -> bool:
    from open_clip import get_pretrained_cfg

    if entry is not None:
        return entry.quick_gelu
    settings = get_pretrained_cfg(name, pretrained) if pretrained and ":" not in name else None
    return bool(settings and settings.get("quick_gelu"))


def _natural(name: str, tag: str | None, entry: Entry | None) -> str:
    """What people call it; of folders and files only the last part, as paths are nobody else's business."""
    if entry is not None:
        return entry.name
    if name.startswith("local-dir:"):
        return Path(name.partition(":")[2]).resolve().name
    return f"{name}/{Path(tag).stem if Path(tag).is_file() else tag}" if tag else name


def _open_clip_config(name: str, cache_dir: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The `model_cfg` of what was loaded: a named architecture's, or the folder's own."""
    import json

    import open_clip
    from huggingface_hub import hf_hub_download

    scheme, colon, rest = name.partition(":")
    if not colon:
        return {"arch": name, **deepcopy(open_clip.get_model_config(name))}
    if scheme == "local-dir":
        path = Path(rest, "open_clip_config.json")
    else:
        path = Path(hf_hub_download(rest, "open_clip_config.json", cache_dir=cache_dir))
    return json.loads(path.read_text("utf-8"))["model_cfg"]


def _open_clip_tokenizer(name: str, cache_dir: str | os.PathLike[str] | None) -> TokenizerSpec:
    import open_clip

    tokenizer = open_clip.get_tokenizer(name, cache_dir=cache_dir and str(cache_dir))
    return describe_tokenizer(tokenizer, tokenizer.context_length)


def load_transformers(
    name: str, *, pretrained: str | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> Model:
    """The fp32 model of transformers in the folder, or with the hub id, `name`.

    Raises `DownloadError` or `CheckpointError`; `pretrained` has no meaning here and must be None.
    """
    import torch
    import transformers

    if pretrained is not None:
        raise CheckpointError(
            f"pretrained={pretrained!r} goes with an open_clip architecture; {name!r} is a transformers model."
        )
    options = {"cache_dir": cache_dir, "trust_remote_code": False}
    reported = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # ignored by no means: refused below
    local = no_network() if Path(name).is_dir() else contextlib.nullcontext()
    with _quiet(), _as_clipq_errors(name, None), local:
        module, found = transformers.AutoModel.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, **reported, **options
        )
        module.eval()
        preprocessing = _transformers_preprocessing(name, options)
        tokenizer = _transformers_tokenizer(name, module, options)
    check_float(name, module)
    check_complete(name, found)
    folder = Path(name).is_dir()
    source = {"name": Path(name).resolve().name if folder else name, "base": None if folder else name}
    return Model(module, preprocessing=preprocessing, tokenizer=tokenizer, source=source)


def _transformers_preprocessing(name: str, options: dict[str, Any]) -> dict[str, Any] | None:
    from transformers import AutoImageProcessor

    from ..inputs.preprocessing import from_image_processor

    try:
        return from_image_processor(AutoImageProcessor.from_pretrained(name, **options))
    except (OSError, ValueError):  # a model without one: its user passes pixels
        return None


def _transformers_tokenizer(name: str, module: Any, options: dict[str, Any]) -> TokenizerSpec | None:
    from transformers import AutoTokenizer

    from ..hosts import find_host

    host = find_host(module)
    if "text" not in host.towers(module):
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError, TypeError):  # a model without one: its user passes token ids
        return None
    return describe_tokenizer(tokenizer, host.context_length(module))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hosts log every step of loading; only what goes wrong is of interest, and that is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _as_clipq_errors(name: str, pretrained: str | None) -> Iterator[None]:
    what = f"{name!r}" + (f" with pretrained={pretrained!r}" if pretrained else "")
    try:
        yield
    except ClipqError:
        raise
    except (FileNotFoundError, ValueError, KeyError, TypeError, AssertionError, ImportError) as error:
        raise CheckpointError(f"{what} cannot be loaded: {error}") from error
    except (OSError, RuntimeError) as error:
        strict = "Error(s) in loading state_dict" in str(error)  # torch's words for tensors missing, left or misshapen
        if strict or (isinstance(error, RuntimeError) and _is_local(name, pretrained)):
            raise CheckpointError(f"{what} does not hold the weights of its model: {error}") from error
        if _is_local(name, pretrained) and not pretrained:
            raise CheckpointError(
                f"{what} needs something that is neither in the folder nor in the hub's cache, and a local path asks "
                f"no network: {error}. Get it once by its hub name, or put it into the folder."
            ) from error
        raise DownloadError(
            f"the weights of {what} cannot be got: {error}. Without a network, give a local folder."
        ) from error


def _is_local(name: str, pretrained: str | None) -> bool:
    """Whether the weights come from files of this machine, so that what goes wrong is no download."""
    return Path(pretrained).is_file() if pretrained else Path(name.removeprefix("local-dir:")).is_dir()
