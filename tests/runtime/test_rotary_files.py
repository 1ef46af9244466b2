"""Files whose towers turn queries and keys: what the runtime reads of their tables, and refuses."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from checkpoint_helpers import forge_config
from fused_helpers import model

import clipq
from clipq.errors import CheckpointError
from clipq.native import library
from clipq.native.rotary import axial
from clipq.native.tensors import Tensors
from clipq.runtime import load

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")


@pytest.fixture(scope="module")
def rotary_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rotary") / "m.safetensors"
    clipq.save(model("transformers DINOv3"), path)
    return path


def numbers(*values: float) -> str:
    return base64.b64encode(np.array(values, np.float32).tobytes()).decode()


CHANGES = [
    ("grid", [2, 8], "not 8 x 32 numbers"),
    ("grid", [4, 5], "for 3 + 4 x 5 tokens, not for 19"),
    ("grid", [4], "not two sides"),
    ("grid", [-4, -4], "grid is -4"),
    ("prefix", 2, "for 2 + 4 x 4 tokens"),
    ("prefix", 1 << 40, "prefix is"),
    ("axes", [0, 1], "not 4 x 2 numbers"),
    ("axes", [2] * 32, "not a list of zeros and ones"),
    ("axes", [], "not a list of zeros and ones"),
    ("cos", "?", "not 4 x 32 numbers"),
    ("cos", 7, "not 4 x 32 numbers"),
    ("sin", numbers(*[0.5] * 127, float("nan")), "not finite"),
]


@pytest.mark.parametrize(("key", "value", "words"), CHANGES, ids=range(len(CHANGES)))
def test_tables_that_do_not_fit_are_refused(rotary_file, tmp_path, key, value, words):
    def change(config):
        config["towers"]["image"]["rotary"][key] = value

    with pytest.raises(CheckpointError) as caught:
        load(forge_config(rotary_file, tmp_path / "m.safetensors", change))
    assert words in str(caught.value)


def changed_block(**values: object):
    def change(config):
        config["towers"]["image"]["blocks"][0].update(values)

    return change


BLOCKS = [
    (lambda config: config["towers"]["image"].pop("rotary"), "for heads of 0"),
    (changed_block(heads=4), "for heads of 32, and a block has 16"),
    (changed_block(heads=64), "no two halves"),
    (changed_block(rotation="twice"), "rotation is 'twice'"),
    (changed_block(gated=True), "has 128 rows, not 64"),
    (changed_block(fc1=[]), "neither one nor two"),
    (changed_block(q_norm={"weight": "norm.weight", "eps": 1e-5}), "not float32 [32]"),
    (changed_block(attn_norm={"weight": "norm.weight", "eps": 1e-5, "kind": "best"}), "kind is 'best'"),
]


@pytest.mark.parametrize(("change", "words"), BLOCKS, ids=range(len(BLOCKS)))
def test_blocks_that_do_not_fit_are_refused(rotary_file, tmp_path, change, words):
    with pytest.raises(CheckpointError) as caught:
        load(forge_config(rotary_file, tmp_path / "m.safetensors", change))
    assert words in str(caught.value)


def test_columns_follow_their_axes():
    tensors = Tensors(lambda name: None, "the test")
    cos, sin = numbers(1, 2, 3, 4, 5, 6), numbers(-1, -2, -3, -4, -5, -6)
    found = axial(tensors, {"grid": [2, 3], "prefix": 1, "axes": [0, 1], "cos": cos, "sin": sin}, 7)
    assert found.prefix == 1
    assert found.cos.tolist() == [[1, 2], [1, 4], [1, 6], [3, 2], [3, 4], [3, 6]]
    assert np.array_equal(found.sin, -found.cos)
