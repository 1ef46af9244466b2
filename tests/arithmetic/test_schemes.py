"""Schemes: what is refused, and with which words; what survives a trip through JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from clipq.arithmetic.precisions import PRECISIONS, per_tower, resolve
from clipq.arithmetic.schemes import FALLBACKS, Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import ClipqError, SchemeError, UnknownNameError

TOKEN = QuantSpec(granularity="token")

REFUSALS: list[tuple[type[ClipqError], str, Callable[[], object]]] = [
    (
        UnknownNameError,
        "unknown granularity 'chanel'. Did you mean 'channel'? Allowed: channel, group, tensor, token.",
        lambda: QuantSpec(granularity="chanel"),
    ),
    (SchemeError, "bits=5 is not supported; give one of 8, 4, 3, 2.", lambda: QuantSpec(bits=5)),
    (SchemeError, "symmetric='no' is not allowed; give True or False.", lambda: QuantSpec(symmetric="no")),
    (SchemeError, "granularity='group' with group_size=None: give group_size", lambda: QuantSpec(granularity="group")),
    (SchemeError, "granularity='channel' with group_size=64: give group_size", lambda: QuantSpec(group_size=64)),
    (
        SchemeError,
        "group_size=0 is not allowed; give a positive integer such as 64.",
        lambda: QuantSpec(granularity="group", group_size=0),
    ),
    (SchemeError, "group_size=2.5 is not allowed", lambda: QuantSpec(granularity="group", group_size=2.5)),
    (SchemeError, "group_size='64' is not allowed", lambda: QuantSpec(granularity="group", group_size="64")),
    (
        UnknownNameError,
        "unknown fallback precision 'fp61'. Did you mean 'fp16'? Allowed: auto, bf16, fp16, fp32.",
        lambda: Scheme("mine", fallback="fp61"),
    ),
    (
        SchemeError,
        "scheme 'mine' quantizes activations or embeddings but not weights; add weights.",
        lambda: Scheme("mine", weights=None, activations=TOKEN),
    ),
    (
        SchemeError,
        "scheme 'mine' quantizes activations or embeddings but not weights",
        lambda: Scheme("mine", weights=None),
    ),
    (SchemeError, 'weights have channels, not tokens: use granularity="channel"', lambda: Scheme("mine", TOKEN)),
    (
        SchemeError,
        "activations with granularity='channel' are not supported; use \"token\"",
        lambda: Scheme("mine", activations=QuantSpec()),
    ),
    (
        SchemeError,
        "activations with granularity='group' are not supported",
        lambda: Scheme("mine", activations=QuantSpec(granularity="group", group_size=8)),
    ),
    (SchemeError, "embeddings are int8 with one symmetric scale a row", lambda: Scheme("mine", embeddings=TOKEN)),
    (
        UnknownNameError,
        "unknown precision 'int-8'. Did you mean 'int8'? Allowed: bf16, fp16, fp32, fp8, fp8-static, int2,",
        lambda: resolve("int-8"),
    ),
    (UnknownNameError, "Or pass a clipq.Scheme.", lambda: resolve("none of these")),
    (UnknownNameError, "unknown precision None.", lambda: resolve(None)),
    (UnknownNameError, "unknown precision ['int8'].", lambda: resolve(["int8"])),
    (UnknownNameError, "unknown fallback precision 'fp8'.", lambda: resolve("int8", "fp8")),
    (UnknownNameError, "unknown fallback precision 'fp8'.", lambda: resolve("fp32", "fp8")),
    (
        UnknownNameError,
        "unknown tower 'images'. Did you mean 'image'? Allowed: image, text.",
        lambda: per_tower({"images": "int8"}),
    ),
    (UnknownNameError, "unknown precision 'int9'. Did you mean 'int8'?", lambda: per_tower({"text": "int9"})),
    (UnknownNameError, "unknown precision {'image': 'int8'}.", lambda: per_tower({"image": {"image": "int8"}})),
]


@pytest.mark.parametrize(("error", "message", "make"), REFUSALS, ids=[words[:40] for _, words, _ in REFUSALS])
def test_refusals_say_what_is_wrong_and_what_is_allowed(error, message, make) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


SCHEMES = [
    *PRECISIONS.values(),
    Scheme("groups", QuantSpec(granularity="group", group_size=32), TOKEN, fallback="bf16"),
    Scheme("per tensor", QuantSpec(False, "tensor"), QuantSpec(False, "tensor"), None, "fp16"),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_a_scheme_survives_json(scheme: Scheme) -> None:
    assert Scheme.from_dict(json.loads(json.dumps(scheme.to_dict()))) == scheme


def without(key: str) -> dict:
    return {k: v for k, v in PRECISIONS["int8"].to_dict().items() if k != key}


def with_weights(**changes: object) -> dict:
    values = PRECISIONS["int8"].to_dict()
    return {**values, "weights": {**values["weights"], **changes}}


@pytest.mark.parametrize("key", ["name", "weights", "activations", "embeddings", "fallback"])
def test_a_stored_scheme_lacks_no_field(key: str) -> None:
    with pytest.raises(SchemeError, match=f"not a quantization scheme: .*{key}"):
        Scheme.from_dict(without(key))


HOSTILE = [
    {**without(""), "extra": 1}, with_weights(extra=1), with_weights(bits=1), with_weights(granularity=[]),
    with_weights(granularity="group", group_size="8"), {**without(""), "weights": "int8"},
    {**without(""), "fallback": {}}, {}, [], "int8", None, 8,
]  # fmt: skip


@pytest.mark.parametrize("values", HOSTILE, ids=str)
def test_what_is_no_stored_scheme_is_a_typed_error(values: object) -> None:
    with pytest.raises((SchemeError, UnknownNameError)):
        Scheme.from_dict(values)


def test_the_ranges_are_those_of_eight_bits() -> None:
    assert (QuantSpec().qmin, QuantSpec().qmax) == (-127, 127)
    assert (QuantSpec(symmetric=False).qmin, QuantSpec(symmetric=False).qmax) == (-128, 127)


def test_the_named_precisions_are_what_their_names_say() -> None:
    assert {name for name, scheme in PRECISIONS.items() if scheme.is_float} == {"fp32", "fp16", "bf16"}
    assert all(scheme.name == name for name, scheme in PRECISIONS.items())
    assert all(PRECISIONS[name].fallback == name for name in ("fp32", "fp16", "bf16"))
    int8 = PRECISIONS["int8"]
    assert int8.weights == QuantSpec(True, "channel") and int8.activations == QuantSpec(False, "token")
    assert PRECISIONS["int8-symmetric"].activations == QuantSpec(True, "token")
    assert PRECISIONS["int8-weight-only"].activations is None


def test_schemes_are_values() -> None:
    assert Scheme("a") == Scheme("a") and hash(Scheme("a")) == hash(Scheme("a")) and Scheme("a") != Scheme("b")
    with pytest.raises(AttributeError):
        Scheme("a").name = "b"


@pytest.mark.parametrize("fallback", FALLBACKS)
def test_resolve_changes_the_fallback_of_quantized_schemes_only(fallback: str) -> None:
    changed = resolve("int8", fallback)
    assert changed.fallback == fallback
    assert Scheme(**{**vars(changed), "fallback": "auto"}) == PRECISIONS["int8"]
    assert resolve("bf16", fallback) is PRECISIONS["bf16"]


def test_resolve_takes_a_scheme_as_it_is() -> None:
    mine = Scheme("mine", fallback="bf16")
    assert resolve(mine) is mine
    assert resolve("int8") is PRECISIONS["int8"]


def test_per_tower() -> None:
    int8, fp32, fp16 = (PRECISIONS[name] for name in ("int8", "fp32", "fp16"))
    mine = Scheme("mine")
    assert per_tower("int8") == {"image": int8, "text": int8}
    assert per_tower({"image": "int8"}) == {"image": int8, "text": fp32}
    assert per_tower({"text": mine, "image": "fp16"}) == {"image": fp16, "text": mine}
    assert per_tower({}) == {"image": fp32, "text": fp32}
    assert per_tower({"image": "int8", "text": "fp16"}, "bf16")["image"].fallback == "bf16"
    assert per_tower({"image": "int8", "text": "fp16"}, "bf16")["text"] == fp16
