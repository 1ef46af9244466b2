"""Rows in batches: the same for any number of threads, what cannot be read left out, time counted."""

from __future__ import annotations

import random
import time

import pytest
import torch

from clipq.work.batches import Batches, Unreadable
from clipq.work.processes import Processes
from clipq.work.spent import Spent
from clipq.work.work import Work, cut

BROKEN = {0, 3, 4, 5, 6, 7, 16, 19, 20}


def _read(row: int) -> object:
    time.sleep(random.random() / 2000)
    return Unreadable(f"row {row} is broken") if row in BROKEN else torch.tensor([row, -row], dtype=torch.float64)


def _batches(threads: int, seen: list | None = None, read=_read) -> Batches:
    def encode(batch: list) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        if seen is not None:
            seen.append([int(one[0]) for one in batch])
        return torch.stack(batch)

    return Batches(read, encode, 3, threads, Spent())


@pytest.mark.parametrize("threads", [0, 1, 2, 4])
def test_shards_and_batches_are_the_same_for_any_number_of_threads(threads):
    seen: list = []
    shards = list(_batches(threads, seen).shards(cut(range(22), 8)))
    assert [shard.start for shard in shards] == [0, 8, 16]
    assert [shard.indices.tolist() for shard in shards] == [[1, 2], [8, 9, 10, 11, 12, 13, 14, 15], [17, 18, 21]]
    assert seen == [[1, 2], [8, 9, 10], [11, 12, 13], [14, 15], [17, 18, 21]]
    assert {row for shard in shards for row in shard.broken} == BROKEN
    assert all(shard.embeddings.dtype == torch.float32 for shard in shards)
    assert shards[2].embeddings.tolist() == [[17, -17], [18, -18], [21, -21]]
    assert not torch.is_inference_mode_enabled()


def test_a_shard_of_which_nothing_can_be_read():
    (shard,) = _batches(2).shards([range(3, 8)])
    assert shard.embeddings.shape == (0, 0) and len(shard.broken) == 5


def test_what_reading_raises_ends_the_work():
    def read(row: int) -> object:
        if row == 9:
            raise MemoryError("row 9")
        return _read(row)

    shards = _batches(2, read=read).shards(cut(range(16), 8))
    assert next(shards).start == 0
    with pytest.raises(MemoryError, match="row 9"):
        next(shards)


@pytest.mark.parametrize("threads", [0, 2])
def test_kept_shards_are_not_read_again_wherever_they_are(tmp_path, threads):
    """Any of the shards may be missing: what is given is the same, and only what was missing was read."""
    work = Work(tmp_path, Processes(), lambda title, total: lambda rows: None)
    whole = work.streamed("x", 40, 8, _batches(threads).shards)
    for missing in ([], [0], [4], [1, 3], [0, 1, 2, 3, 4]):
        for number in missing:
            (tmp_path / f"x-{8 * number:08d}.safetensors").unlink()
        read: list[int] = []
        again = work.streamed(
            "x", 40, 8, _batches(threads, read=lambda row, r=read: r.append(row) or _read(row)).shards
        )
        assert sorted(read) == [row for number in missing for row in range(8 * number, 8 * number + 8)]
        assert [one.start // 8 for one in again if not one.resumed] == missing
        for one, other in zip(again, whole, strict=True):
            assert one.indices.equal(other.indices) and one.embeddings.equal(other.embeddings)
            assert one.broken == other.broken


def test_pieces_that_are_forgotten_are_gone(tmp_path):
    work = Work(tmp_path, Processes(), lambda title, total: lambda rows: None)
    work.streamed("x", 16, 8, _batches(0).shards)
    work.forget("x", [range(8), range(24, 32)])
    assert [path.name for path in tmp_path.iterdir()] == ["x-00000008.safetensors"]


def test_time_is_counted_by_what_it_went_into():
    spent = Spent()
    assert spent.said() == ""
    with spent.on("encode"):
        time.sleep(0.02)
    with spent.on("decode"):
        time.sleep(0.02)  # waiting takes nothing of a processor
    spent.add("preprocess", 0.5)
    spent.done(10)
    assert 0.02 <= spent.seconds["encode"] < 0.2 and spent.seconds["decode"] < 0.01
    assert spent.said().startswith("encode 2") and spent.said().endswith("preprocess 50 ms of a core")
