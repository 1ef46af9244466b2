"""The race: who takes part, what fails and what does not, and how turns and memory are measured."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from peer_helpers import CLIPQ, EAGER, WARM_UP, contestant, nothing_but_zeros
from peers import measuring, racing, trust
from peers.contestant import Contestant, reason_to_skip
from peers.contestants import YARDSTICKS
from peers.racing import Race, best_rows, promising


def not_finite(inputs: np.ndarray) -> np.ndarray:
    return np.full((len(inputs), 48), np.nan, np.float32)


def refuses(*arguments: object) -> None:
    raise RuntimeError("\n\nno such kernel\nand a long explanation")


WRONG = [
    (contestant("exports", export=refuses), "RuntimeError: no such kernel"),
    (Contestant("opens", "int8", (), (), lambda *_: {"only": refuses}), "only: RuntimeError: no such kernel"),
    (contestant("runs", refuses), "only: RuntimeError: no such kernel"),
    (contestant("is not finite", not_finite), "only: ValueError: the embeddings are not finite"),
]


def test_contestants_that_fail_are_reported_and_the_others_go_on(place):
    race = Race(place, [*YARDSTICKS, *(wrong for wrong, _ in WRONG)], (1,), 1)
    race.run()
    assert {row["contestant"] for row in race.rows} == {CLIPQ, EAGER}
    reasons = {wrong.name: why for wrong, why in WRONG}
    assert {(failure["contestant"], failure["error"]) for failure in race.failures} == set(reasons.items())
    status = {one["name"]: (one["status"], one["reason"]) for one in race.entries()}
    failed = {name: ("failed", why) for name, why in reasons.items()}
    assert status == {CLIPQ: ("measured", None), EAGER: ("measured", None), **failed}


def test_who_is_missing_is_skipped_by_name(place):
    missing = Contestant("absent", "int8", ("no-such-distribution", "numpy"), (), refuses)
    optional = contestant("optional", flag="compile")
    unfit = contestant("unfit", obstacle=lambda: "this processor cannot")
    race = Race(place, [missing, optional, unfit], (1,), 1)
    assert race.skipped() == {
        "absent": "not installed: no-such-distribution",
        "optional": "only with --compile",
        "unfit": "this processor cannot",
    }
    race.run()
    assert not race.rows and not race.failures
    assert reason_to_skip(missing, True, frozenset()) == "not installed: no-such-distribution"
    assert reason_to_skip(unfit, True, frozenset()) is None
    assert reason_to_skip(optional, False, frozenset({"compile"})) is None


def test_the_fastest_setting_counts_and_hopeless_ones_are_not_timed():
    once = {(CLIPQ, "only"): 1.0, ("peer", "fast"): 2.0, ("peer", "slower"): 2.5, ("peer", "hopeless"): 9.0}
    assert promising(once) == [(CLIPQ, "only"), ("peer", "fast"), ("peer", "slower")]
    samples = {(CLIPQ, "only"): [10.0, 30.0, 20.0], ("peer", "fast"): [9.0, 40.0, 50.0], ("peer", "slower"): [30.0] * 3}
    own, peer = best_rows(samples, once)
    assert own["ratio"] == 1 and not own["other_settings_ms"]
    assert own["ms"] == {"median": 20, "min": 10, "max": 30, "q1": 15, "q3": 25}
    assert (peer["setting"], peer["ratio"]) == ("slower", 1.5)
    assert peer["other_settings_ms"] == {"fast": 40.0, "hopeless": 9000.0}


def test_who_is_far_too_slow_is_timed_once_and_left_out_of_larger_batches(place, monkeypatch):
    monkeypatch.setattr(racing, "single", lambda encode, inputs: 9.0 if encode is nothing_but_zeros else 1.0)
    monkeypatch.setattr(trust, "MISCONFIGURED", math.inf)
    race = Race(place, [*YARDSTICKS, contestant("slow")], (2, 1), 3)
    race.run()
    slow = [row for row in race.rows if row["contestant"] == "slow"]
    assert {(row["batch_size"], row["samples"], row["ms"]["median"]) for row in slow} == {(1, 1, 9000.0)}
    assert {row["samples"] for row in race.rows if row["contestant"] != "slow"} == {3}
    assert {(f["contestant"], f["batch_size"], f["error"][:9]) for f in race.failures} == {("slow", 2, "left out:")}


def test_who_must_have_been_set_up_wrongly_is_in_no_cell(place, monkeypatch):
    monkeypatch.setattr(racing, "single", lambda encode, inputs: 999.0 if encode is nothing_but_zeros else 0.001)
    race = Race(place, [*YARDSTICKS, contestant("wrong")], (1, 2), 1)
    race.run()
    assert {row["contestant"] for row in race.rows} == {CLIPQ, EAGER} and not race.failures
    (entry,) = (one for one in race.entries() if one["name"] == "wrong")
    assert entry["status"] == "dropped"
    assert "times torch fp32's time (image tower, images, batch 1), which is our setting" in entry["reason"]


def test_every_row_says_how_it_was_warmed_up(result):
    for row in result["rows"]:
        warm = row["warm_up"]
        assert 0 < warm["call_seconds"] <= warm["seconds"]
        assert warm["seconds"] >= WARM_UP or warm["stable"] and warm["calls"] >= 2 * trust.WINDOW


def test_turns_alternate():
    calls = []
    encoders = {(name, ""): partial(lambda name, inputs: calls.append(name), name) for name in "ABC"}
    once = dict.fromkeys(encoders, measuring.SAMPLE_SECONDS / 2)
    samples, errors = measuring.in_turns(encoders, np.zeros(1), 4, once)
    assert calls == list("AABBCC") * 4  # two calls fill a sample
    assert {len(found) for found in samples.values()} == {4} and not errors


def test_who_fails_late_loses_only_its_own_samples():
    calls = []

    def second_time(inputs: np.ndarray) -> None:
        calls.append(inputs)
        if len(calls) == 2:
            raise MemoryError

    encoders = {("A", ""): nothing_but_zeros, ("B", ""): second_time}
    samples, errors = measuring.in_turns(encoders, np.zeros(1), 3, dict.fromkeys(encoders, 1.0))
    assert [*samples] == [("A", "")] and len(samples["A", ""]) == 3
    assert errors == {("B", ""): "MemoryError"}


def test_a_cell_is_measured_again_until_it_is_quiet(monkeypatch):
    """And the quietest attempt counts, whatever its times."""
    key, peer = (CLIPQ, "only"), ("peer", "only")
    noisy, quiet, fast = [10.0, 20.0, 30.0], [40.0, 41.0, 42.0], [1.0, 5.0, 9.0]
    encoders = {key: nothing_but_zeros, peer: nothing_but_zeros}

    def after(*attempts: list[float]) -> tuple[list[float], int]:
        given = iter(attempts)
        monkeypatch.setattr(measuring, "in_turns", lambda *_: ({key: next(given), peer: [99.0, 300.0, 900.0]}, {}))
        samples, errors, tries = measuring.quietest(encoders, np.zeros(1), 3, {})
        assert not errors
        return samples[key], tries

    assert after(quiet, fast) == (quiet, 1)
    assert after(noisy, quiet, fast) == (quiet, 2)
    assert after(noisy, fast, noisy, quiet) == (noisy, 3)


def test_who_fails_in_a_later_attempt_is_out(monkeypatch):
    encoders = {(name, ""): nothing_but_zeros for name in "AB"}
    attempts = iter(
        [({("A", ""): [1.0, 2.0, 3.0], ("B", ""): [9.0] * 3}, {}), ({("A", ""): [1.0] * 3}, {("B", ""): "x"})]
    )
    monkeypatch.setattr(measuring, "in_turns", lambda *_: next(attempts))
    assert measuring.quietest(encoders, np.zeros(1), 3, {}) == ({("A", ""): [1.0] * 3}, {("B", ""): "x"}, 2)


def test_memory_is_measured_in_a_fresh_process(place):
    found = measuring.memory(contestant("zeros"), place)
    assert 0 < found["idle"] <= found["loaded"] <= found["peak"]
