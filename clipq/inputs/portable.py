"""Preprocessing and tokenizers in the files of Hugging Face, which every runtime's users read: what exports carry."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ExportError
from .settings import OPENAI_MEAN, OPENAI_STD
from .tokenizer_files import TokenizerSpec

_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""PIL's numbers."""


def image_processor(settings: Mapping[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json of a `CLIPImageProcessor` that does what `settings` (as a model has them) say.

    Raises `ExportError` for what it cannot do (open_clip's resize_mode="longest", timm's other crops).
    """
    return _PROCESSORS[settings["kind"]]({k: v for k, v in settings.items() if k != "kind"})


def _of_transformers(settings: dict[str, Any]) -> dict[str, Any]:
    return settings


def _of_open_clip(settings: dict[str, Any]) -> dict[str, Any]:
    size, mode = settings.get("size", 224), settings.get("resize_mode", "shortest")
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    if mode == "squash":
        return _clip(settings, {"height": height, "width": width}, None)
    if mode != "shortest" or height != width:
        raise ExportError(
            f"a preprocessor_config.json has no words for resize_mode={mode!r} to {height} x {width}; allowed: "
            "'squash', or 'shortest' to a square. Give the model other preprocessing, or none: preprocessing={}."
        )
    return _clip(settings, {"shortest_edge": height}, {"height": height, "width": width})


def _of_timm(settings: dict[str, Any]) -> dict[str, Any]:
    _, height, width = settings["input_size"]
    mode, share = settings.get("crop_mode") or "center", settings.get("crop_pct") or 1.0
    if mode == "squash":
        return _clip(settings, {"height": height, "width": width}, None)
    if mode != "center" or height != width:
        raise ExportError(
            f"a preprocessor_config.json has no words for crop_mode={mode!r} to {height} x {width}; allowed: 'squash', "
            "or 'center' to a square. Give the model other preprocessing, or none: preprocessing={}."
        )
    return _clip(settings, {"shortest_edge": int(height / share)}, {"height": height, "width": width})


def _clip(settings: Mapping[str, Any], size: Mapping[str, int], crop: Mapping[str, int] | None) -> dict[str, Any]:
    cropping = {"do_center_crop": crop is not None, **({} if crop is None else {"crop_size": dict(crop)})}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": dict(size),
        "resample": _RESAMPLE[settings.get("interpolation", "bicubic")],
        **cropping,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _three(settings.get("mean", OPENAI_MEAN)),
        "image_std": _three(settings.get("std", OPENAI_STD)),
    }


def _three(value: Any) -> list[float]:
    return list(value) if isinstance(value, list | tuple) else [value] * 3


_PROCESSORS = {"transformers": _of_transformers, "open_clip": _of_open_clip, "timm": _of_timm}


def tokenizer_files(spec: TokenizerSpec) -> dict[str, str]:
    """The files of a fast tokenizer (tokenizer.json, ...) that makes the ids which `spec` makes.

    open_clip's own BPE becomes transformers' `CLIPTokenizer` with its vocabulary. It mends no broken Unicode (ftfy),
    resolves no HTML entities, and pads with the end of the text, as OpenAI's does: open_clip pads with 0, which is "!",
    and a special token "!" would be found in every text that has one. No causal tower sees what it is padded with.
    Raises `ExportError` for open_clip's ways to shorten texts.
    """
    if spec.settings["kind"] == "transformers":
        return dict(spec.files)
    if spec.settings.get("reduction_mask"):
        raise ExportError(
            f"reduction_mask={spec.settings['reduction_mask']!r} shortens texts as no tokenizer.json can say; "
            "export the image tower alone: towers=('image',)."
        )
    return _bpe_files(spec.settings["context_length"])


def _bpe_files(context_length: int) -> dict[str, str]:
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizerFast

    own = SimpleTokenizer(context_length=context_length)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps(own.encoder, ensure_ascii=False), "utf-8")
        lines = (" ".join(pair) for pair, _ in sorted(own.bpe_ranks.items(), key=lambda item: item[1]))
        merges.write_text("#version: 0.2\n" + "\n".join(lines) + "\n", "utf-8")
        begin, end = ("<start_of_text>", "<end_of_text>")
        special = {"bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": end}
        built = CLIPTokenizerFast.from_pretrained(folder, model_max_length=context_length, **special)
        target = Path(folder, "saved")
        built.save_pretrained(target)
        return {path.name: path.read_text("utf-8") for path in sorted(target.glob("*.json"))}
