"""Is int8 worth it here? The choice among given times as a table; one real race of tiny models."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

import clipq
from clipq import kernels
from clipq.arithmetic.precisions import AUTO, auto_towers, per_tower, without_auto
from clipq.errors import UnknownNameError
from clipq.loading import worth
from clipq.loading.worth import CANDIDATES, Sizes, Timing, TowerWorth, advice, choose, measure
from clipq.timing import alternate

TINY = Sizes(1, 16, 32, 16, image_width=32, text_width=32, head_width=16, context_length=12, vocab_size=64)
CPU = torch.device("cpu")


def timings(*, spread: float = 0.02, **ms: float | None) -> tuple[Timing, ...]:
    """Of each candidate; None: so slow that it was only probed."""
    return tuple(
        Timing(name, 0.1)
        if one is None
        else Timing(name, ms["fp32"] / one, one, one * (1 - spread), one * (1 + spread))
        for name, one in ((name, ms[name]) for name in CANDIDATES)
    )


def tower(name: str = "image", **ms: float | None) -> TowerWorth:
    return TowerWorth(name, 4, timings(**ms), choose(timings(**ms)))


@pytest.mark.parametrize(
    ("ms", "spread", "chosen"),
    [
        ({"fp32": 100, "bf16": 50, "int8": 25}, 0.02, "int8"),
        ({"fp32": 100, "bf16": None, "int8": 25}, 0.02, "int8"),
        ({"fp32": 100, "bf16": 300, "int8": 90}, 0.02, "int8"),
        ({"fp32": 100, "bf16": 50, "int8": 60}, 0.02, "bf16"),
        ({"fp32": 100, "bf16": 50, "int8": 49}, 0.02, "bf16"),  # within the noise: the more accurate one
        ({"fp32": 100, "bf16": 50, "int8": None}, 0.02, "bf16"),
        ({"fp32": 100, "bf16": 99, "int8": 98}, 0.02, "fp32"),
        ({"fp32": 100, "bf16": 97, "int8": 90}, 0.001, "int8"),
        ({"fp32": 100, "bf16": 97, "int8": 94}, 0.02, "fp32"),  # int8 beats fp32 but not bf16, which does not beat fp32
        ({"fp32": 100, "bf16": 120, "int8": 150}, 0.02, "fp32"),
        ({"fp32": 100, "bf16": None, "int8": None}, 0.02, "fp32"),
        ({"fp32": 100, "bf16": None, "int8": 70}, 0.3, "fp32"),  # a third faster, but the samples overlap
        ({"fp32": 100, "bf16": None, "int8": 50}, 0.3, "int8"),
        ({"fp32": 100, "bf16": None, "int8": 97}, 0.0, "fp32"),  # no spread at all, but too small a lead to come back
    ],
)
def test_the_choice(ms, spread, chosen):
    assert choose(timings(spread=spread, **ms)) == chosen


def test_more_noise_never_chooses_a_less_accurate_precision():
    ms = {"fp32": 100.0, "bf16": 70.0, "int8": 45.0}
    ranks = [CANDIDATES.index(choose(timings(spread=spread / 50, **ms))) for spread in range(40)]
    assert ranks == sorted(ranks, reverse=True)
    assert (ranks[0], ranks[-1]) == (2, 0)


def test_the_scale_of_the_times_does_not_matter():
    for factor in (1e-3, 1.0, 1e3):
        assert choose(timings(fp32=2.0 * factor, bf16=1.5 * factor, int8=1.6 * factor)) == "bf16"


@pytest.mark.parametrize(
    ("towers", "missing", "words"),
    [
        (
            [tower(fp32=100, bf16=None, int8=40), tower("text", fp32=100, bf16=None, int8=50)],
            "",
            "int8 is 2.50 x as fast as fp32 for images and 2.00 x for texts here: worth it.",
        ),
        ([tower("text", fp32=100, bf16=None, int8=50)], "", "int8 is 2.00 x as fast as fp32 for texts here: worth it."),
        (
            [tower(fp32=100, bf16=None, int8=99), tower("text", fp32=100, bf16=None, int8=50)],
            "",
            "int8 is 1.01 x as fast as fp32 for images and 2.00 x for texts here: worth it for texts only.",
        ),
        (
            [tower(fp32=100, bf16=20, int8=50)],
            "",
            "int8 is 2.00 x as fast as fp32 for images here: not worth it for speed, only for size: bf16 is as fast or "
            "faster, and more accurate.",
        ),
        (
            [tower(fp32=100, bf16=None, int8=100)],
            "",
            "int8 is 1.00 x as fast as fp32 for images here: not worth it for speed, only for size: its kernels (a "
            "kernel) gain nothing on this processor that is more than noise.",
        ),
        (
            [tower(fp32=100, bf16=None, int8=None)],
            "no compiler",
            "int8 is 0.10 x as fast as fp32 for images here: not worth it for speed, only for size: clipq's native "
            "library is missing (no compiler), so int8 runs on a kernel.",
        ),
        (
            [tower(fp32=100, bf16=None, int8=50)],
            "no compiler",
            "int8 is 2.00 x as fast as fp32 for images here: worth it, although clipq's native library is missing "
            "(no compiler), so int8 runs on a kernel.",
        ),
    ],
)
def test_the_advice_is_one_sentence_with_the_reason(towers, missing, words):
    assert advice(towers, "a kernel", missing) == words


def test_a_missing_native_library_is_named(monkeypatch):
    assert bool(worth.missing(CPU)) == (kernels.why(CPU)["native"] not in ("chosen", "available"))
    monkeypatch.setattr(kernels, "why", lambda device: {"native": "no compiler", "reference": "chosen"})
    assert worth.missing(CPU) == "no compiler"
    assert worth.missing(torch.device("cuda")) == ""


@pytest.fixture(scope="module")
def found() -> worth.Worth:
    return measure(limit=0.02, sizes=TINY)


def test_a_real_race(found):
    assert [one.tower for one in found.towers] == ["image", "text"]
    for one in found.towers:
        assert tuple(timing.precision for timing in one.timings) == CANDIDATES
        assert one.timing("fp32").speed == 1.0
        assert 1 <= one.batch_size <= TINY.batch_size
        assert one.choice == choose(one.timings)
        for timing in one.timings:
            assert timing.speed > 0
            assert timing.ms is None or 0 < timing.low <= timing.ms <= timing.high
    assert set(found.choice) == {"image", "text"}
    assert found.advice.startswith("int8 is ")
    assert found.advice.endswith(".")
    with pytest.raises(FrozenInstanceError):
        found.threads = 5


def test_it_is_json(found):
    assert json.loads(json.dumps(found.to_dict()))["choice"] == found.choice


def test_it_is_measured_once_for_a_device_and_a_number_of_threads(found, monkeypatch):
    monkeypatch.setattr(worth, "alternate", lambda *a, **k: pytest.fail("measured again"))
    assert measure(limit=0.02, sizes=TINY).towers == found.towers
    assert measure("cpu", ("text",), limit=0.02, sizes=TINY).choice == {"text": found.choice["text"]}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1234)
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        measure(limit=0.02, sizes=TINY)


def test_a_race_leaves_the_random_numbers_of_the_caller_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    measure(towers=("image",), limit=0.011, sizes=TINY)
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_tower():
    with pytest.raises(UnknownNameError, match="unknown tower 'texts'.*Did you mean 'text'"):
        measure(towers=("texts",))


def test_the_models_raced_have_the_precisions_and_widths_asked_for():
    for name in CANDIDATES:
        model = worth._model(worth._module(TINY), "image", name, CPU)
        assert model.precision == {"image": name, "text": "fp32"}
    assert replace(TINY, text_width=16) == TINY.only("image")
    ids = worth._captions(Sizes())
    assert ids.shape == (4, 77)
    lengths = ids.argmax(dim=1) + 1  # the largest id ends a text
    assert len(set(lengths.tolist())) == 4
    assert 8 <= lengths.min() <= lengths.max() <= 20


def test_what_is_hopeless_is_called_twice_at_most():
    calls = dict.fromkeys(CANDIDATES, 0)

    def call(name: str, work: int):
        def run() -> None:
            calls[name] += 1
            sum(range(work))

        return run

    slow, base = worth._hopeless(
        {"fp32": call("fp32", 2_000), "bf16": call("bf16", 2_000_000), "int8": call("int8", 1)}, CPU
    )
    assert list(slow) == ["bf16"]
    assert 0 < slow["bf16"] < 0.5
    assert base > 0
    assert calls["fp32"] == calls["bf16"] == 2
    assert 1 <= calls["int8"] <= 2


@pytest.mark.parametrize(("limit", "rounds"), [(0.0, 3), (1e9, 7)])
def test_turns_are_taken_until_the_limit_but_three_times_at_least(limit, rounds):
    order = []
    samples = alternate([lambda: order.append("a"), lambda: order.append("b")], 7, CPU, limit=limit, sample=1e-9)
    assert [len(one) for one in samples] == [rounds, rounds]
    assert "".join(order) == "ab" * (2 + rounds)  # a warm-up, and a call to find out how often to repeat it


# precision="auto"


def test_auto_asks_for_towers_and_is_replaced_by_the_answers():
    answers = {"image": "int8", "text": "bf16"}
    assert auto_towers("int8") == ()
    assert auto_towers(AUTO) == ("image", "text")
    assert auto_towers({"image": AUTO, "text": "fp16"}) == ("image",)
    assert without_auto(AUTO, answers) == answers
    assert without_auto(AUTO, {"image": "int8", "text": "int8"}) == "int8"
    assert without_auto({"image": AUTO, "text": "fp16"}, answers) == {"image": "int8", "text": "fp16"}
    assert without_auto({"text": AUTO}, answers) == {"image": "fp32", "text": "bf16"}
    assert without_auto(AUTO, {"image": "int8"}) == {"image": "int8", "text": "fp32"}


def test_auto_is_listed_only_where_it_is_allowed():
    with pytest.raises(UnknownNameError, match="unknown precision 'aut'. Did you mean 'auto'.*Allowed: auto, bf16"):
        auto_towers("aut")
    with pytest.raises(UnknownNameError, match="unknown precision 'auto'.*Allowed: bf16.*by clipq.load"):
        per_tower(AUTO)
    with pytest.raises(UnknownNameError, match="unknown precision 'auto'"):
        clipq.quantize(worth._module(TINY), AUTO)
