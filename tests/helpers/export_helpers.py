"""Small models that came with preprocessing and a tokenizer, and their export without timing."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_models import OPEN_CLIP, build, open_clip_config

import clipq
from clipq.exports import exporting

PREPROCESSING = {"kind": "open_clip", "size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}


def model(name: str = "open_clip CLIP", precision: str = "int8", **options) -> clipq.Model:
    torch.manual_seed(0)
    module = build(name)
    if name in OPEN_CLIP:
        kind, changes = OPEN_CLIP[name]
        config = {"custom_text": kind != "CLIP", **open_clip_config(**changes)}
        options = {"config": config, "preprocessing": PREPROCESSING, "tokenizer": "ViT-B-32", **options}
    return clipq.quantize(clipq.Model(module, **options), precision)


def export(of: clipq.Model, path: Path, *arguments, **options) -> exporting.Export:
    return clipq.export(of, path, *arguments, **{"timed": False, **options})
