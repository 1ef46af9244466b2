"""Small models that came with preprocessing and a tokenizer, and their exports without timing, each traced once."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from once import made_once
from tiny_models import OPEN_CLIP, build, open_clip_config

import clipq
from clipq.exports import exporting
from clipq.files.header import EXPORT_REPORT

PREPROCESSING = {"kind": "open_clip", "size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}


def model(name: str = "open_clip CLIP", precision: str = "int8", **options) -> clipq.Model:
    """The tiny model `name` with whatever else a `Model` has."""
    torch.manual_seed(0)
    if name not in OPEN_CLIP:
        module = build(name)
    else:
        import open_clip

        kind, changes = OPEN_CLIP[name]
        changes = {**changes, **options.pop("changes", {})}
        module = getattr(open_clip, kind)(**open_clip_config(**changes)).eval()
        config = {"custom_text": kind != "CLIP", **open_clip_config(**changes)}
        options = {"config": config, "preprocessing": PREPROCESSING, "tokenizer": "ViT-B-32", **options}
    return clipq.quantize(clipq.Model(module, **options), precision)


one_block = partial(model, changes={"vision_layers": 1, "text_layers": 1})
"""As `model`, for one of open_clip, in half the time to trace."""


def export(of: clipq.Model, path: Path, *arguments, **options) -> exporting.Export:
    return clipq.export(of, path, *arguments, **{"timed": False, **options})


def exported_once(factory: pytest.TempPathFactory, name: str, precision: str, to: str = "onnx") -> Path:
    """The folder of `model(name, precision)` for `to`, which is everybody's: not to be changed."""
    place = f"{to} of {name} in {precision}".replace(" ", "-")
    return made_once(factory, place, lambda folder: export(model(name, precision), folder / "out", to)) / "out"


def parity(folder: Path) -> dict[str, dict[str, Any]]:
    """Of each tower, as the report in the folder has it."""
    return json.loads((folder / EXPORT_REPORT).read_text("utf-8"))["parity"]
