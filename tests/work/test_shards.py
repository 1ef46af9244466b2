"""The file of a shard: what was written comes back, and nothing else is taken for it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from clipq.work.shards import DamagedShard, Shard, read_shard, write_shard

ROWS = range(4, 8)
SHARD = Shard(4, torch.tensor([4, 6, 7]), torch.arange(6.0).view(3, 2), {5: "row 5 is \udcff broken"})


@pytest.fixture
def path(tmp_path):
    write_shard(tmp_path / "s.safetensors", SHARD, "key", "")
    return tmp_path / "s.safetensors"


def test_what_was_written_comes_back(path):
    found = read_shard(path, ROWS, "key")
    assert found.indices.equal(SHARD.indices) and found.embeddings.equal(SHARD.embeddings)
    assert (found.start, found.broken, found.resumed) == (4, SHARD.broken, True)


def test_a_shard_without_any_readable_row(tmp_path):
    empty = Shard(4, torch.tensor([], dtype=torch.int64), torch.empty(0, 0), dict.fromkeys(ROWS, "broken"))
    write_shard(tmp_path / "s", empty, "key", "")
    assert read_shard(tmp_path / "s", ROWS, "key").broken == empty.broken


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"indices": torch.tensor([4, 5, 7])}, "its rows are not 4 to 7"),
        ({"indices": torch.tensor([4, 6, 8])}, "its rows are not 4 to 7"),
        ({"indices": torch.tensor([6, 4, 7])}, "its rows are not 4 to 7"),
        ({"broken": {}}, "its rows are not 4 to 7"),
        ({"indices": torch.tensor([4, 7])}, "its shapes are"),
        ({"embeddings": torch.zeros(3)}, "its shapes are"),
        ({"embeddings": torch.zeros(3, 2).half()}, "its dtypes are torch.int64 and torch.float16"),
        ({"indices": torch.tensor([4.0, 6, 7])}, "its dtypes are torch.float32"),
    ],
)
def test_a_shard_of_other_rows_or_kinds_is_not_taken(tmp_path, change, says):
    write_shard(tmp_path / "s", replace(SHARD, **change), "key", "")
    with pytest.raises(DamagedShard, match=says):
        read_shard(tmp_path / "s", ROWS, "key")


def _metadata(path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_changed_numbers_reasons_or_identities_break_the_seal(path):
    tensors, metadata = {"indices": SHARD.indices, "embeddings": SHARD.embeddings}, _metadata(path)
    changed = [
        ({**tensors, "embeddings": SHARD.embeddings + 1e-3}, metadata),
        ({**tensors, "embeddings": SHARD.embeddings.repeat(1, 2)}, metadata),
        (tensors, {**metadata, "broken": json.dumps({5: "another reason"})}),
        (tensors, {"broken": metadata["broken"]}),
    ]
    for one in changed:
        save_file(one[0], path, one[1])
        with pytest.raises(DamagedShard, match="sha256"):
            read_shard(path, ROWS, "key")
    write_shard(path, SHARD, "key", "")
    with pytest.raises(DamagedShard, match="sha256"):
        read_shard(path, ROWS, "another key")


@pytest.mark.parametrize("broken", ["[]", "null", "{", '{"a": 1}', "[" * 100_000])
def test_metadata_of_any_kind_is_met(path, broken):
    save_file({"indices": SHARD.indices, "embeddings": SHARD.embeddings}, path, {"broken": broken})
    with pytest.raises(DamagedShard, match="cannot be read"):
        read_shard(path, ROWS, "key")
