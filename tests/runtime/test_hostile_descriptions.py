"""Headers that describe towers which are none: the runtime refuses them by name, and never crashes."""

from __future__ import annotations

import pytest
from checkpoint_helpers import forge, forge_config

from clipq.errors import CheckpointError
from clipq.native import library
from clipq.runtime import load

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")

IMAGE, TEXT = "image", "text"


def put(tower, *path_and_value):
    """The change of one value of a tower's description; a value of ... takes the key away."""
    *path, last, value = path_and_value

    def change(config):
        table = config["towers"][tower]
        for key in path:
            table = table[key]
        if value is ...:
            del table[last]
        else:
            table[last] = value

    return change


def repeated(config):
    blocks = config["towers"]["image"]["blocks"]
    config["towers"]["image"]["blocks"] = blocks[:1] * 1000


CHANGES = [
    (put(IMAGE, "patches", "weight", "gone"), "tensor 'gone' is missing"),
    (put(IMAGE, "patches", "weight", 3), "tensor 3 is missing"),
    (put(IMAGE, "patches", ...), "no 'patches'"),
    (put(IMAGE, "patches", "weight"), "in place of a table"),
    (put(IMAGE, "pixels", [3, 10**9, 8]), "pixels is 1000000000"),
    (put(IMAGE, "pixels", "large"), "pixels is 'large'"),
    (put(IMAGE, "patch", [64, 64]), "larger than the picture"),
    (put(IMAGE, "patch", [4, 4]), "not one for each"),
    (put(IMAGE, "positions", "prefix", 9), "prefix is 9"),
    (put(IMAGE, "positions", "prefix", 0), "not float32 [16, 64]"),
    (put(IMAGE, "norm", "eps", -1), "eps of a norm is -1"),
    (put(IMAGE, "norm", "weight", "visual_projection.weight"), "not float32 [64]"),
    (put(IMAGE, "keep", 99), "keep is 99"),
    (put(IMAGE, "blocks", []), "no blocks"),
    (put(IMAGE, "blocks", 0, "heads", 7), "not divided by 7 heads"),
    (put(IMAGE, "blocks", 0, "activation", "os.system"), "activation is 'os.system'"),
    (put(IMAGE, "blocks", 0, "qkv", []), "neither one matrix nor three"),
    (put(IMAGE, "blocks", 0, "qkv", 0, "rows", [5, 3]), "do not exist"),
    (
        put(IMAGE, "blocks", 0, "qkv", 0, "scale", "vision_model.embeddings.position_embedding.weight"),
        "not one for each",
    ),
    (put(IMAGE, "blocks", 0, "fc2", "weight", "vision_model.embeddings.patch_embedding.weight"), "has 96 rows, not 64"),
    (put(IMAGE, "blocks", 0, "ls_1", "visual_projection.weight"), "not float32 [64]"),
    (put(IMAGE, "steps", [{"run": 1}]), "a step after the blocks is"),
    (put(IMAGE, "steps", [{"mean": 1}]), "mean is 1"),
    (put(IMAGE, "keep", None), "rows of a picture, and an embedding is one"),
    (put(IMAGE, "steps", [{"attention": {}}]), "no 'heads'"),
    (put(TEXT, "context", 10**9), "context is 1000000000"),
    (put(TEXT, "vocabulary", 10), "not float32 [10]"),
    (put(TEXT, "pool", {"kind": "end", "id": -1}), "id is -1"),
    (put(TEXT, "pool", {"kind": "best"}), "kind is 'best'"),
    (put(TEXT, "positions", "vision_model.embeddings.position_embedding.weight"), "not float32"),
    (repeated, "bytes of tensors, which it does not have"),
    (lambda config: config.update(towers=[]), "before 0.6"),
    (lambda config: config.update(towers={"image": 3}), "before 0.6"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=range(len(CHANGES)))
def test_towers_that_are_none_are_refused(two_tower_file, tmp_path, change, words):
    path = forge_config(two_tower_file, tmp_path / "m.safetensors", change)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert words in str(caught.value)


def test_numbers_that_are_none_are_refused(two_tower_file, tmp_path):
    def change(entries, data):
        start, _ = entries["vision_model.embeddings.patch_embedding.weight_scale"]["data_offsets"]
        data[start : start + 4] = b"\x00\x00\xc0\x7f"

    path = forge(two_tower_file, tmp_path / "m.safetensors", change)
    with pytest.raises(
        CheckpointError, match="scales of 'vision_model.embeddings.patch_embedding.weight' are not finite"
    ):
        load(path)


def test_a_file_that_is_cut_off_is_refused(two_tower_file, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(two_tower_file.read_bytes()[:-9])
    with pytest.raises(CheckpointError):
        load(path)
