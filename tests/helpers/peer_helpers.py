"""What the tests of the comparison with peers share: a tiny model, and contestants that do as they are told."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from peers.contestant import Contestant
from peers.contestants import YARDSTICKS

WARM_UP = 0.1
"""Seconds of warm-up at most."""

CLIPQ, EAGER = (one.name for one in YARDSTICKS)


def tiny_model():
    from tiny_models import build, config

    from clipq.inputs.tokenizer_files import TokenizerSpec
    from clipq.models import Model

    return Model(
        build("open_clip CLIP"),
        config=config("open_clip CLIP"),
        preprocessing={"kind": "open_clip", "size": 32},
        tokenizer=TokenizerSpec({"kind": "open_clip", "context_length": 16}),
        source={"name": "tiny"},
    )


def nothing_but_zeros(inputs: np.ndarray) -> np.ndarray:
    return np.zeros((len(inputs), 48), np.float32)


def settings_of(encode, place, tower, batch):
    return {"only": partial(_given, encode)}


def _given(encode):
    return encode


def contestant(name: str, encode=nothing_but_zeros, **other) -> Contestant:
    return Contestant(name, "int8", (), ("numpy",), partial(settings_of, encode), **other)


def arguments(weights: Path, output: Path, *more: str) -> list[str]:
    fast = ["--batch-sizes", "1,2", "--runs", "2", "--threads", "1", "--calibration", "2", "--warm-up", str(WARM_UP)]
    return ["--weights", str(weights), *fast, "--accept-noise", "--output", str(output), *more]
