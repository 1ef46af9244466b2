"""Shards: dealt out, kept as they are done, and taken up again only where they fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clipq.errors import ClipqWarning, OutputError
from clipq.work.processes import Processes
from clipq.work.shards import Shard, write_shard
from clipq.work.work import Work, working


def do(rows: range) -> Shard:
    """Row i of the embeddings is [i, -i]; every fifth row is broken."""
    good = [row for row in rows if row % 5]
    values = torch.tensor(good, dtype=torch.float32)
    broken = {row: f"row {row} is broken" for row in rows if not row % 5}
    return Shard(rows.start, torch.tensor(good), torch.stack([values, -values], dim=1), broken)


def refuse(rows: range) -> Shard:
    raise AssertionError(f"rows {rows} were done already")


def work_in(folder: Path | None, processes: Processes | None = None) -> Work:
    return Work(folder, processes or Processes(), lambda title, total: lambda rows: None)


def contents(shards: list[Shard]) -> list[tuple]:
    return [(one.start, one.indices.tolist(), one.embeddings.tolist(), one.broken) for one in shards]


def test_shards_are_in_order_and_the_last_one_is_short():
    shards = work_in(None).shards("texts", 11, 4, do)
    assert [one.start for one in shards] == [0, 4, 8]
    assert torch.cat([one.indices for one in shards]).tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert {row for one in shards for row in one.broken} == {0, 5, 10}
    assert not any(one.resumed for one in shards)


def test_what_was_kept_is_not_done_again(tmp_path):
    first = work_in(tmp_path).shards("texts", 11, 4, do)
    again = work_in(tmp_path).shards("texts", 11, 4, refuse)
    assert contents(again) == contents(first)
    assert all(one.resumed for one in again) and not any(one.resumed for one in first)


def test_only_what_is_missing_or_damaged_is_done_again(tmp_path):
    first = work_in(tmp_path).shards("texts", 16, 4, do)
    (tmp_path / "texts-00000004.safetensors").unlink()
    damaged = tmp_path / "texts-00000012.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    with pytest.warns(ClipqWarning, match=r"texts-00000012\.safetensors is damaged: .* it is done again") as said:
        again = work_in(tmp_path).shards("texts", 16, 4, do)
    assert contents(again) == contents(first) and len(said) == 1
    assert [one.start for one in again if not one.resumed] == [4, 12]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 4


def test_other_titles_and_other_identities_share_nothing(tmp_path):
    own = work_in(tmp_path).within({"model": "a"})
    own.shards("texts", 3, 4, do)
    with pytest.raises(AssertionError, match="done already"):
        own.shards("images", 3, 4, refuse)
    with pytest.raises(AssertionError, match="done already"):
        work_in(tmp_path).within({"model": "b"}).shards("texts", 3, 4, refuse)
    assert work_in(tmp_path).within({"model": "a"}).shards("texts", 3, 4, refuse)[0].resumed
    assert work_in(None).within({"model": "a"}).folder is None


def test_processes_that_share_a_folder_do_the_shards_of_one(tmp_path):
    """Each does every third shard; together they leave what one process finds complete."""
    for index in range(3):
        apart = work_in(tmp_path, _Alone(index, 3)).shards("texts", 20, 4, do)
        assert [one.start for one in apart] == [*range(0, 20, 4)][index::3]
    kept = work_in(tmp_path).shards("texts", 20, 4, refuse)
    assert contents(kept) == contents(work_in(None).shards("texts", 20, 4, do))


class _Alone(Processes):
    """One of several processes, asked for its own share only."""

    def gathered(self, done: list) -> list:
        return done


def test_kept_shards_of_another_width_are_done_again(tmp_path):
    wide = replace(do(range(4)), embeddings=torch.zeros(3, 7))
    write_shard(tmp_path / "texts-00000000.safetensors", wide, "", "")
    with pytest.warns(ClipqWarning, match="several widths"):
        shards = work_in(tmp_path).shards("texts", 8, 4, do)
    assert contents(shards) == contents(work_in(None).shards("texts", 8, 4, do))


def test_a_shard_that_cannot_be_written_leaves_those_before_it(tmp_path):
    def fail_later(rows: range) -> Shard:
        if rows.start == 8:
            (tmp_path / "x" / "texts-00000008.safetensors").mkdir()  # in the way, as a full disk would be
        return do(rows)

    work = work_in(tmp_path / "x")
    with pytest.raises(OutputError, match="cannot write .*00000008.*What was finished is kept"):
        work.shards("texts", 16, 4, fail_later)
    (tmp_path / "x" / "texts-00000008.safetensors").rmdir()
    assert [one.resumed for one in work.shards("texts", 16, 4, do)] == [True, True, False, False]


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_is_shown_on_stderr_if_asked_for(capfd, progress, shown):
    with working(None, Processes(), progress) as work:
        work.shards("texts", 11, 4, do)
    out, err = capfd.readouterr()
    assert out == "" and ("11/11" in err) == shown


def test_only_the_main_process_shows_progress(capfd):
    with working(None, _Alone(1, 2), True) as work:
        work.shards("texts", 11, 4, do)
    assert capfd.readouterr() == ("", "")
