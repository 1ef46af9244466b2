"""Which process does what."""

from __future__ import annotations

import pytest

from clipq.work.processes import Processes, launched


@pytest.mark.parametrize(("pieces", "count"), [(0, 2), (1, 3), (7, 1), (7, 2), (8, 3)])
def test_every_piece_is_done_once_and_shares_are_about_equal(pieces, count):
    work = range(pieces)
    shares = [list(Processes(index, count).mine(work)) for index in range(count)]
    assert sorted(piece for share in shares for piece in share) == list(work)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_is_the_main_one_and_has_gathered_all():
    assert Processes().is_main and not Processes(1, 2).is_main
    assert Processes().gathered([1, 2]) == [1, 2]


def test_what_nothing_launched_is_one_process_and_leaves_accelerates_state_alone(monkeypatch):
    from accelerate import PartialState

    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    before = dict(PartialState._shared_state)
    assert launched("cpu") == Processes(0, 1)
    assert PartialState._shared_state == before
