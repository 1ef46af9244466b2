"""Fewer than 8 bits: each spec against a dense computation in float64, codebooks against their papers."""

from __future__ import annotations

import json

import pytest
import torch

from clipq.arithmetic import codebooks, functional
from clipq.arithmetic.fitting import fit_qparams
from clipq.arithmetic.gptq import gptq
from clipq.arithmetic.low_bits import LOW_BITS
from clipq.arithmetic.precisions import ABOUT, PRECISIONS
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import SchemeError, UnknownNameError

PUBLISHED_NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]
"""QLoRA, arXiv:2305.14314, appendix E."""
SPECS = {
    **{
        f"{bits} bits, groups of {size}{', symmetric' if symmetric else ''}": QuantSpec(symmetric, "group", size, bits)
        for bits in (4, 3, 2)
        for size in (32, 64)
        for symmetric in (True, False)
    },
    "real zero points": QuantSpec(False, "group", 32, 3, float_zero_point=True),
    "channel": QuantSpec(bits=4),
    "channel, asymmetric": QuantSpec(symmetric=False, bits=2),
    "tensor": QuantSpec(granularity="tensor", bits=3),
    "nf4": QuantSpec(granularity="group", group_size=64, bits=4, codebook="nf4"),
    "k-means, channel": QuantSpec(bits=3, codebook="kmeans"),
    "k-means, tensor": QuantSpec(granularity="tensor", bits=4, codebook="kmeans"),
}


def weight(kind: str = "plain", rows: int = 12) -> torch.Tensor:
    w = torch.randn(rows, 128, generator=torch.Generator().manual_seed(3)) * 0.05
    if kind == "outlier":
        w[:, 5] *= 100
    if kind == "constant":
        w[:] = 0.3
    if kind == "zero rows":
        w[::2] = 0
    if kind == "tiny":
        w[3] *= 1e-9
    if kind == "one-sided":
        w = w.abs() + 1
    return w


KINDS = ("plain", "outlier", "constant", "zero rows", "tiny", "one-sided")


def values_of(scale: torch.Tensor, zero_point: torch.Tensor, spec: QuantSpec) -> torch.Tensor:
    """float64 [groups, 2^bits]: all that a weight of each group may become."""
    if spec.stores_values:
        return scale.double()
    if spec.codebook:
        return torch.tensor(PUBLISHED_NF4, dtype=torch.float64) * scale.double().reshape(-1, 1)
    integers = torch.arange(-(1 << (spec.bits - 1)), 1 << (spec.bits - 1), dtype=torch.float64)
    return (integers - zero_point.double().reshape(-1, 1)) * scale.double().reshape(-1, 1)


def dense_groups(w: torch.Tensor, spec: QuantSpec) -> torch.Tensor:
    width = {"tensor": w.numel(), "channel": w.shape[1], "group": spec.group_size}[spec.granularity]
    return w.reshape(-1, width)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_each_weight_becomes_the_nearest_of_its_groups_values(spec, kind):
    w = weight(kind)
    for scale, zero_point in (functional.choose_qparams(w, spec), fit_qparams(w, spec)):
        q = functional.quantize(w, scale, zero_point, spec)
        assert q.dtype == torch.int8
        assert spec.qmin <= q.min() and q.max() <= spec.qmax
        found = dense_groups(functional.dequantize(q, scale, zero_point, spec), spec).double()
        groups, table = dense_groups(w, spec).double(), values_of(scale, zero_point, spec).expand(-1, 1 << spec.bits)
        distance = (groups[:, :, None] - table[:, None, :]).abs().amin(-1)
        size = table.abs().amax(1, keepdim=True)
        assert ((groups - found).abs() <= distance + 1e-5 * size).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_fitted_scales_are_never_worse_than_those_of_the_range(spec, kind):
    w = weight(kind)

    def errors(scale, zero_point):
        made = functional.dequantize(functional.quantize(w, scale, zero_point, spec), scale, zero_point, spec)
        return (dense_groups(made - w, spec).double() ** 2).sum(1)

    before, after = errors(*functional.choose_qparams(w, spec)), errors(*fit_qparams(w, spec))
    assert (after <= before * (1 + 1e-5) + 1e-12).all()
    if kind == "plain" and not spec.stores_values:
        assert after.sum() < 0.95 * before.sum()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_gptq_leaves_less_error_than_rounding_to_nearest(spec):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(512, 128, generator=generator) @ torch.randn(128, 128, generator=generator)
    w, gram = weight(), x.T @ x

    def loss(q, scale, zero_point):
        return ((x @ (functional.dequantize(q, scale, zero_point, spec) - w).T).double() ** 2).sum()

    scale, zero_point = fit_qparams(w, spec, gram.diagonal())
    assert loss(*gptq(w, gram, spec)) < 0.8 * loss(functional.quantize(w, scale, zero_point, spec), scale, zero_point)


def test_importance_moves_the_scales():
    spec, w = SPECS["2 bits, groups of 32"], weight()
    importance = torch.ones(128)
    importance[::3] = 100

    def error(scale, zero_point):
        made = functional.dequantize(functional.quantize(w, scale, zero_point, spec), scale, zero_point, spec)
        return (importance * (made - w) ** 2).sum()

    assert error(*fit_qparams(w, spec, importance)) < 0.95 * error(*fit_qparams(w, spec))


def test_nf4_is_the_published_one():
    found = codebooks.nf4()
    assert torch.allclose(found, torch.tensor(PUBLISHED_NF4), rtol=0, atol=1e-6)
    assert found[7] == 0 and found[0] == -1 and found[15] == 1


def test_kmeans_finds_clusters_and_weighs_them():
    centres = torch.tensor([[-3.0, -1.0, 0.5, 2.0]])
    noise = 0.01 * torch.randn(1, 400, generator=torch.Generator().manual_seed(0))
    found = codebooks.kmeans(centres.repeat(1, 100) + noise, 4)
    assert torch.allclose(found, centres, atol=0.01)
    two = torch.tensor([[0.0, 1.0, 10.0, 10.0]])
    assert torch.allclose(codebooks.kmeans(two, 2, torch.tensor([1.0, 3.0, 1.0, 1.0])), torch.tensor([[0.75, 10.0]]))
    assert codebooks.kmeans(torch.full((2, 5), 0.3), 8).isfinite().all()


def test_the_ranges_are_those_of_the_bits():
    assert [(QuantSpec(bits=b).qmin, QuantSpec(bits=b).qmax) for b in (4, 3, 2)] == [(-8, 7), (-4, 3), (-2, 1)]
    assert (SPECS["nf4"].qmin, SPECS["nf4"].qmax) == (0, 15)
    assert [spec.label for spec in (QuantSpec(), QuantSpec(bits=3), SPECS["nf4"])] == ["int8", "int3", "nf4"]


@pytest.mark.parametrize(("width", "fallback", "expected"), [
    (4304, "adjust", 16), (2730, "adjust", 42), (588, "adjust", 49), (128, "adjust", 64), (128, "error", 64),
    (4304, "keep", None), (134, "adjust", None), (17, "adjust", 17),
])  # fmt: skip
def test_widths_that_no_group_divides_follow_the_rule(width, fallback, expected):
    spec = QuantSpec(False, "group", 64, 4, group_size_fallback=fallback).fitted(width, "fc2.weight")
    assert spec.group_size == expected
    assert expected is not None or spec == QuantSpec()


def test_the_error_names_the_weight():
    with pytest.raises(SchemeError, match=r"blocks.0.fc2 has 4304 inputs, which do not divide into groups of 64"):
        QuantSpec(False, "group", 64, 4).fitted(4304, "blocks.0.fc2")


@pytest.mark.parametrize(("wrong", "words"), [
    ({"codebook": "nf5"}, "unknown codebook 'nf5'. Did you mean 'nf4'?"),
    ({"codebook": "nf4", "bits": 3}, "give bits=4"),
    ({"codebook": "nf4", "bits": 4, "symmetric": False}, "a codebook has no zero point"),
    ({"codebook": "kmeans", "bits": 4, "granularity": "group", "group_size": 64}, 'give "channel" or "tensor"'),
    ({"codebook": "kmeans"}, "give 4, 3 or 2 bits"),
    ({"float_zero_point": True, "bits": 4}, "for asymmetric integers"),
    ({"float_zero_point": 1, "bits": 4, "symmetric": False}, "float_zero_point=1"),
    ({"float_zero_point": True, "symmetric": False}, "fewer than 8 bits"),
    ({"group_size_fallback": "adapt"}, "unknown group_size_fallback 'adapt'. Did you mean 'adjust'?"),
    ({"bits": True}, "bits=True"),
])  # fmt: skip
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises((SchemeError, UnknownNameError)) as caught:
        QuantSpec(**wrong)
    assert words in str(caught.value)


def test_activations_of_fewer_bits_are_refused():
    with pytest.raises(SchemeError, match="activations of 4 bits"):
        Scheme("mine", activations=QuantSpec(granularity="token", bits=4))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_specs_survive_json(spec):
    scheme = Scheme("mine", spec)
    assert Scheme.from_dict(json.loads(json.dumps(scheme.to_dict()))) == scheme


def test_what_older_versions_do_not_know_is_not_written():
    assert set(QuantSpec().to_dict()) == {"symmetric", "granularity", "group_size", "bits"}
    assert LOW_BITS.items() <= PRECISIONS.items()


@pytest.mark.parametrize("kind", ["plain", "zero rows", "outlier"])
def test_scales_of_groups_are_half_precision_and_nothing_is_lost(kind):
    spec = SPECS["4 bits, groups of 32"]
    q, stored, zero_point = functional.quantize_weight(weight(kind), spec, "w")
    assert stored.dtype == torch.float16 and zero_point.dtype == torch.int8
    scale, exact = functional.choose_qparams(weight(kind), spec)
    assert torch.equal(stored.float(), scale) and torch.equal(zero_point.float(), exact)


def test_scales_that_half_precision_cannot_hold_stay_float32():
    for factor in (1e-5, 1e7):
        assert functional.quantize_weight(weight() * factor, SPECS["nf4"], "w")[1].dtype == torch.float32
    assert functional.quantize_weight(weight("tiny"), SPECS["nf4"], "w")[1].dtype == torch.float32


def test_every_precision_is_explained():
    assert set(ABOUT) == set(PRECISIONS)
    assert all(0 < len(line) < 100 and "\n" not in line for line in ABOUT.values())
