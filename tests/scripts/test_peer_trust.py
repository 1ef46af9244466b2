"""Which runs are kept: spread, warm-up and misconfiguration on numbers that are given."""

from __future__ import annotations

import numpy as np
import pytest
from peer_helpers import CLIPQ, EAGER
from peers import results, trust

from clipq.errors import ClipqError


def row(name: str, *samples: float, batch: int = 1) -> dict:
    where = {"tower": "image", "input": "images", "batch_size": batch}
    return {**where, "contestant": name, "ms": trust.summary(samples)}


@pytest.mark.parametrize("samples", [[3.0], [1.0, 2.0], [5.0, 1.0, 4.0, 2.0, 9.0], [2.0, 8.0, 1.0, 4.0, 6.0, 7.0, 3.0]])
def test_quartiles_are_those_of_numpy(samples):
    found = trust.summary(samples)
    low, median, high = np.percentile(samples, [25, 50, 75])
    assert found == pytest.approx({"median": median, "min": min(samples), "max": max(samples), "q1": low, "q3": high})
    assert trust.spread(found) == pytest.approx((high - low) / median)
    assert trust.spread({"median": 1.0, "min": 1.0, "max": 9.0}) is None, "results of before have no quartiles"


def test_the_spread_of_the_fastest_contestant_counts_and_the_cell_is_named():
    steady, wild = (10.0, 10.1, 10.2, 10.3, 90.0), (20.0, 30.0, 40.0, 50.0, 60.0)
    assert trust.noisy_cells([row(CLIPQ, *steady), row(EAGER, *wild)]) == []
    rows = [row(CLIPQ, *steady), row(CLIPQ, *wild, batch=8), row(EAGER, 99.0, batch=8)]
    assert trust.noisy_cells(rows) == [f"image tower, images, batch 8: {CLIPQ} varies by 50 %"]
    assert trust.noisy_cells([row(CLIPQ, 10.0, 10.8, 11.6)]) == []  # quartiles 10.4 and 11.2: 7.4 %
    assert len(trust.noisy_cells([row(CLIPQ, 10.0, 10.8, 11.6)], limit=0.07)) == 1


def test_a_noisy_run_is_refused_by_its_cell_and_kept_only_if_told_to(tmp_path):
    output = tmp_path / "results.jsonl"
    results.append({"run": 1, "noisy": trust.noisy_cells([row(CLIPQ, 10.0, 10.1, 10.2)])}, output)
    before = output.read_bytes()
    noisy = {"run": 2, "noisy": trust.noisy_cells([row(CLIPQ, 10.0, 20.0, 30.0)])}
    with pytest.raises(
        ClipqError, match=r"over 15 %.*image tower, images, batch 1: clipq int8 varies by 50 %.*--accept"
    ):
        results.append(noisy, output)
    assert output.read_bytes() == before
    results.append(noisy, output, accept_noise=True)
    assert output.read_bytes().startswith(before) and output.read_text("utf-8").count("\n") == 2


def test_a_warm_up_ends_when_the_time_is_stable():
    times = iter([0.5, 0.3, 0.2, 0.15, 0.12, *[0.1] * 50])
    found = trust.warmed(lambda: next(times), limit=60)
    assert found.stable and found.call_seconds == 0.1
    assert found.calls == 13, "three of five calls before, and the five after, took 0.1 s"
    assert found.seconds == pytest.approx(0.5 + 0.3 + 0.2 + 0.15 + 0.12 + 8 * 0.1)


def test_a_warm_up_that_never_gets_stable_ends_by_its_seconds():
    times = (2.0**-i for i in range(1000))
    found = trust.warmed(lambda: next(times), limit=1.0)
    assert not found.stable and found.calls == 1, "one long call is enough"
    drifting = (0.01 * 1.1**i for i in range(1000))
    found = trust.warmed(lambda: next(drifting), limit=1.0)
    assert not found.stable and 1.0 <= found.seconds < 1.5


def test_who_takes_many_times_the_yardsticks_time_was_set_up_wrongly():
    rows = [row(EAGER, 100.0), row(CLIPQ, 5000.0), row("slow", 700.0), row("wrong", 1600.0), row("wrong", 1.0, batch=8)]
    (name, reason), *others = trust.misconfigured(rows, EAGER, [CLIPQ]).items()
    assert name == "wrong" and not others
    assert reason.startswith("left out: 16 times torch fp32's time (image tower, images, batch 1)")
    assert trust.misconfigured(rows[1:], EAGER, [CLIPQ]) == {}, "nothing to compare with"
