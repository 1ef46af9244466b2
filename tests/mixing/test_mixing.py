"""Mixed precision within a budget: what is promised holds of the model that comes out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mixing_helpers import fragile, inputs
from tiny_models import build, config

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.scheme_files import read_scheme, read_schemes, write_schemes
from clipq.description import weight_bytes
from clipq.errors import BudgetError, QuantizationError, SchemeError, UnknownNameError
from clipq.files.saving import quantization_config
from clipq.methods import quantization
from clipq.methods.steps import is_calibrated
from clipq.mixing.budgets import Budget
from clipq.mixing.mixing import mix
from clipq.mixing.units import Trials, reaching, units_of
from clipq.modules.layers import QuantizedModule

TWO = ("fp16", "int8")
FRAGILE = "visual.transformer.resblocks.1"
MODELS = ("open_clip CLIP", "transformers SigLIP", "open_clip timm trunk", "timm vision_transformer")


def model(name: str = "open_clip CLIP") -> clipq.Model:
    return clipq.Model(build(name), config=config(name))


@pytest.mark.parametrize(("name", "share"), list(zip(MODELS, (0.5, 0.9, 0.05, 0.3), strict=True)))
def test_sizes_are_those_of_the_model_that_comes_out(name, share):
    """Never above the budget, and what is said of it is what it has."""
    given = inputs(build(name), 12)
    half = sum(p.numel() for p in build(name).parameters()) * 2
    smallest = weight_bytes(clipq.quantize(model(name), "int8", fallback="fp16"))
    limit = smallest + share * (half - smallest)
    found = mix(build(name), {"max_size": limit}, candidates=TWO, calibration=given)
    quantized = clipq.quantize(model(name), found.schemes)
    assert weight_bytes(quantized) == found.measured["bytes"] == found.chosen.cost <= limit
    assert list(found.sizes) == [point.cost for point in found.front] == sorted(found.sizes)
    place = found.front.index(found.chosen)
    assert place == len(found.front) - 1 or found.front[place + 1].cost > limit


def test_the_fragile_block_is_the_one_that_stays_float():
    module = fragile()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    asked = {"precision": {"image": "mixed", "text": "int8"}, "candidates": TWO, "calibration": inputs(module)}
    room = sum(p.numel() for p in module.get_submodule(FRAGILE).parameters()) * 1.05
    found = mix(module, {"max_size": mix(module, {"max_size": "1GB"}, **asked).front[0].cost + room}, **asked)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    floats = [unit.name for unit, name in zip(found.units, found.chosen.choice, strict=True) if name == "fp16"]
    assert FRAGILE in floats
    image = found.schemes["image"]
    assert image.name == "mixed" and image.fallback == "fp16"
    assert image.at(f"{FRAGILE}.mlp.c_fc") == PRECISIONS["fp16"]


def test_more_budget_is_never_a_larger_estimated_error():
    module = fragile()
    given, errors = inputs(module), []
    points = mix(module, {"max_size": "1GB"}, calibration=given).front
    for point in points[:: max(len(points) // 4, 1)]:
        errors.append(mix(module, {"max_size": point.cost}, calibration=given).chosen.error)
    assert errors == sorted(errors, reverse=True) and len(set(errors)) > 3


def test_a_drop_within_the_budget_and_none_that_can_be():
    module = fragile()
    given = inputs(module)
    found = mix(module, {"max_drop": 100}, candidates=TWO, calibration=given)
    assert found.chosen == found.front[0] and found.measured["drop"] <= 100
    exact = mix(module, {"max_drop": 0.0}, candidates=TWO, calibration=given)
    assert exact.measured["drop"] <= 0.0 and exact.chosen.cost >= found.chosen.cost


def test_the_drop_is_measured_on_the_half_that_was_not_seen():
    module = fragile()
    given = inputs(module)
    found = mix(module, {"max_drop": 100}, candidates=TWO, calibration=given)
    unseen = {tower: one[1::2] for tower, one in given.items()}
    quantized = clipq.quantize(clipq.Model(fragile()), found.schemes)
    exact = clipq.Model(fragile())
    p, q = (
        100 * m.encode_image(unseen["image"], normalize=True) @ m.encode_text(unseen["text"], normalize=True).T
        for m in (exact, quantized)
    )
    first, now = p.argmax(-1, keepdim=True), q.argmax(-1, keepdim=True)
    drop = 100 * (p.softmax(-1).gather(1, first) - p.softmax(-1).gather(1, now)).mean()
    assert found.measured["drop"] == pytest.approx(float(drop), abs=1e-3)
    assert found.measured["changed"] == pytest.approx(float((first != now).float().mean()))


def test_a_budget_of_time_is_kept_as_measured():
    module = build("open_clip CLIP")
    found = mix(module, {"max_ms": 10_000}, candidates=TWO, calibration=inputs(module))
    assert found.measured["ms"] <= 10_000 and found.chosen == found.front[-1]
    with pytest.raises(BudgetError, match="max_ms=0.00 ms cannot be met: the fastest choice that was timed has"):
        mix(module, {"max_ms": 1e-6}, candidates=TWO, calibration=inputs(module))


def test_a_budget_that_cannot_be_met_names_the_nearest():
    smallest = weight_bytes(clipq.quantize(model(), "int8", fallback="fp16"))
    with pytest.raises(BudgetError, match=f"smallest choice of these candidates has {smallest / 1e6:.2f} MB"):
        clipq.quantize(model(), budget={"max_size": "1kB"}, candidates=TWO, calibration=inputs(build("open_clip CLIP")))


def test_quantize_saves_and_loads_it_as_any_other(tmp_path):
    module = fragile()
    given, smallest = inputs(module), weight_bytes(clipq.quantize(model(), "int8", fallback="fp16"))
    one = clipq.Model(module, config=config("open_clip CLIP"))
    clipq.quantize(one, budget={"max_size": smallest + 40_000}, candidates=TWO, calibration=given)
    assert one.precision["image"] == "mixed"
    again = clipq.load(clipq.save(one, tmp_path / "m.safetensors"))
    assert again.recipe == one.recipe
    assert torch.equal(again.encode_image(given["image"]), one.encode_image(given["image"]))
    write_schemes(one.recipe.schemes["image"], tmp_path / "s.toml")
    twin = clipq.quantize(fragile(), {"image": read_scheme(tmp_path / "s.toml")})
    assert torch.equal(clipq.Model(twin).encode_image(given["image"]), one.encode_image(given["image"]))


def test_a_tower_may_be_settled():
    module = build("open_clip CLIP")
    precision = {"image": "mixed", "text": "int8-weight-only"}
    found = mix(module, {"max_size": "1GB"}, precision=precision, candidates=TWO, calibration=inputs(module))
    assert {unit.tower for unit in found.units} == {"image"}
    quantized = clipq.quantize(model(), found.schemes)
    assert quantized.precision["text"] == "int8-weight-only"
    assert weight_bytes(quantized) == found.measured["bytes"] == found.chosen.cost
    with pytest.raises(SchemeError, match="leaves nothing to a budget"):
        mix(module, {"max_size": "1GB"}, precision="int8", calibration=inputs(module))


@pytest.mark.parametrize("name", sorted(name for name, one in PRECISIONS.items() if not reaching(one)))
def test_the_size_of_every_precision_is_known_before(name):
    module = build("open_clip CLIP")
    host, given = clipq.Model(module).host, inputs(build("open_clip CLIP"))
    units, batches = units_of(module, host, ("image", "text")), {tower: [one] for tower, one in given.items()}
    trials = Trials(module, host, units, {name: PRECISIONS[name]}, batches)
    known = sum(trials.bytes_of(unit, name, torch.float32) for unit in trials.units)
    known += sum(trials.other_bytes(tower, torch.float32) for tower in ("image", "text")) + 4  # the logit scale
    if PRECISIONS[name].is_float:
        assert known == weight_bytes(clipq.Model(module))
    else:
        calibration = given if is_calibrated(PRECISIONS[name]) else None
        assert known == weight_bytes(
            clipq.quantize(clipq.Model(module), name, fallback="fp32", calibration=calibration)
        )


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({}, "give one of"),
        ({"max_drop": 1, "max_ms": 2}, "give one of"),
        ({"max_dorp": 1}, "Did you mean 'max_drop'?"),
        ({"max_size": "80 MP"}, "unknown unit of size 'MP'"),
        ({"max_size": "large"}, "such as '80MB'"),
        ({"max_ms": "12"}, "give a number"),
        ({"max_drop": -1}, "not negative"),
        ({"max_drop": float("nan")}, "not negative"),
        ({"max_drop": True}, "not negative"),
        (3, "give one of"),
    ],
)
def test_budgets_that_are_none(budget, words):
    with pytest.raises((SchemeError, UnknownNameError)) as caught:
        clipq.quantize(build("open_clip CLIP"), budget=budget)
    assert words in str(caught.value)


@pytest.mark.parametrize(("text", "count"), [("80MB", 80e6), ("1.5 kB", 1500), ("2MiB", 2 << 20), (12, 12)])
def test_sizes_as_people_write_them(text, count):
    assert Budget.of({"max_size": text}).limit == count


@pytest.mark.parametrize("wrong", [("int8",), ("fp16", "fp32", "int8"), ("int8", "int8"), ("int4", "w4a8")])
def test_candidates_that_cannot_be(wrong):
    with pytest.raises(SchemeError):
        mix(build("open_clip CLIP"), {"max_drop": 1}, candidates=wrong)
    with pytest.raises(SchemeError, match="give a budget with them"):
        clipq.quantize(build("open_clip CLIP"), candidates=TWO)
    with pytest.raises(SchemeError, match="among the candidates"):
        clipq.quantize(build("open_clip CLIP"), budget={"max_drop": 1}, fallback="fp32")


@pytest.mark.parametrize("candidates", [("fp16", "int8", "int4"), ("int8", "int4-gptq"), ("fp32", "w4a8")])
def test_precisions_of_fewer_bits_and_with_steps(candidates, tmp_path):
    """What is measured is what comes out, steps included; half of it is put in place of the larger one."""
    module, given = fragile(), inputs(fragile())
    ends = mix(module, {"max_size": "1GB"}, candidates=candidates, calibration=given).front
    limit = (ends[0].cost + ends[-1].cost) / 2
    found = mix(module, {"max_size": limit}, candidates=candidates, calibration=given)
    assert len(set(found.chosen.choice)) > 1
    seen = {tower: one[0::2] for tower, one in given.items()}
    calibrated = {tower: seen[tower] for tower, one in found.schemes.items() if is_calibrated(one)}
    one = clipq.Model(module, config=config("open_clip CLIP"))
    quantization.quantize(one, found.schemes, calibration=calibrated or None)
    assert weight_bytes(one) == found.chosen.cost == found.measured["bytes"] <= limit
    again = clipq.load(clipq.save(one, tmp_path / "m.safetensors"))
    assert again.recipe == one.recipe
    assert torch.equal(again.encode_image(given["image"]), one.encode_image(given["image"]))
    groups = quantization_config(one)["config_groups"].values()
    assert {group["weights"]["num_bits"] for group in groups} <= {4, 8}
    assert sorted(name for group in groups for name in group["targets"]) == sorted(one.recipe.modules)
    write_schemes(found.schemes, tmp_path / "s.toml")
    assert read_schemes(tmp_path / "s.toml") == found.schemes


def test_smoothing_reaches_beyond_a_block():
    smoothed = replace(PRECISIONS["int8"], steps=("smooth",))
    with pytest.raises(SchemeError, match="'smooth', which changes more"):
        mix(fragile(), {"max_drop": 1}, candidates=("fp16", smoothed), calibration=inputs(fragile()))


def test_a_quantized_model_is_refused():
    module = clipq.quantize(build("open_clip CLIP"), "int8")
    with pytest.raises(QuantizationError, match="already"):
        mix(module, {"max_drop": 1}, calibration=inputs(build("open_clip CLIP")))
    assert any(isinstance(part, QuantizedModule) for part in module.modules())
