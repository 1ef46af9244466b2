"""Sensitivities: what is measured against doing it by hand, what stays as it was, what is saved."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from mixing_helpers import fragile, inputs
from tiny_models import build
from torch import nn

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.errors import ClipqWarning, DataError, QuantizationError, UnknownNameError
from clipq.hosts import find_host
from clipq.mixing.differences import Answers
from clipq.mixing.sensitivity import Sensitivity
from clipq.mixing.units import OUTSIDE, Trials, units_of
from clipq.modules.layers import QuantizedModule

MODELS = ("open_clip CLIP", "transformers SigLIP", "timm vision_transformer", "open_clip ResNet", "open_clip ConvNeXt")


@pytest.mark.parametrize("name", MODELS)
def test_units_are_all_that_is_quantized_each_once(name):
    module = build(name)
    host = find_host(module)
    units = units_of(module, host, host.towers(module))
    names = [one for unit in units for one in unit.modules]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipqWarning)  # of the convolutions of a ResNet
        quantized = clipq.quantize(build(name), "int8")
    parts = {path for path, part in quantized.named_modules() if isinstance(part, QuantizedModule)}
    assert len(names) == len(set(names))
    assert all(any(part == one or part.startswith(f"{one}.") for one in names) for part in parts)
    for unit in units:
        scheme = clipq.Scheme("x", exceptions=tuple((p, PRECISIONS["fp32"]) for p in unit.patterns))
        inside = {one for one in names if scheme.at(one) is not scheme}
        assert inside == set(unit.modules)


def test_the_fragile_block_stands_out_and_the_model_stays_as_it_was():
    module = fragile().train()
    before, given = {k: v.clone() for k, v in module.state_dict().items()}, inputs(module)
    found = clipq.sensitivity(module, ("fp16", "int8"), calibration=given)
    assert module.training and all(part.training for part in module.modules())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert not any(isinstance(part, QuantizedModule) for part in module.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    image = {one.unit: one.kl for one in found.effects if one.tower == "image" and one.precision == "int8"}
    assert max(image, key=image.get) == "visual.transformer.resblocks.1"
    half = {one.unit: one.kl for one in found.effects if one.tower == "image" and one.precision == "fp16"}
    assert all(half[unit] < image[unit] for unit in image)
    assert found.inputs == {"image": 24, "text": 24}


def test_an_effect_is_that_of_quantizing_the_unit_alone():
    given = inputs(build("open_clip CLIP"))
    found = clipq.sensitivity(build("open_clip CLIP"), ("int8",), calibration=given)
    exact = clipq.Model(build("open_clip CLIP"))
    for unit, patterns in (
        ("visual.transformer.resblocks.0", ["visual.conv1", "visual.*.1.*"]),
        (OUTSIDE, ["visual.*.0.*", "visual.*.1.*"]),
    ):
        exceptions = tuple((one, PRECISIONS["fp32"]) for one in patterns)
        scheme = replace(PRECISIONS["int8"], fallback="fp32", exceptions=exceptions)
        alone = clipq.quantize(clipq.Model(build("open_clip CLIP")), {"image": scheme})
        p, q = (one.encode_image(given["image"], normalize=True).double() for one in (exact, alone))
        texts = exact.encode_text(given["text"], normalize=True).double()
        effect = found.of("image", unit, "int8")
        assert 1 - effect.cosine == pytest.approx(1 - float((p * q).sum(-1).mean()), rel=0.05)  # rounding tips over
        a, b = ((100 * one @ texts.T).log_softmax(-1) for one in (p, q))
        assert effect.kl == pytest.approx(float((a.exp() * (a - b)).sum(-1).mean()), rel=0.05)


def test_noise_by_depth_is_that_of_the_residual_stream():
    given = inputs(build("timm vision_transformer"))["image"]
    found = clipq.sensitivity(build("timm vision_transformer"), ("int8",), calibration=given)
    exact, module = build("timm vision_transformer"), clipq.quantize(build("timm vision_transformer"), "int8")
    streams = []
    for one in (exact, module):
        seen: list[torch.Tensor] = []
        for block in one.blocks:
            block.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
        with torch.no_grad():
            one(given)
        streams.append(seen)
    shares = [float((q - p).norm() / p.norm()) for p, q in zip(*streams, strict=True)]
    assert [one.noise for one in found.noise] == pytest.approx(shares, rel=1e-3)
    assert [one.depth for one in found.noise] == list(range(1, len(shares) + 1))


def test_a_saved_file_comes_back_and_others_are_refused(tmp_path):
    module = build("timm vision_transformer")
    found = clipq.sensitivity(module, ("int8",), calibration=inputs(module)["image"])
    path = found.save(tmp_path / "s.jsonl")
    assert Sensitivity.load(path) == found
    assert len(path.read_text().splitlines()) == 1 + len(found.effects) + len(found.noise)
    for content in ("", "{}", "[]", '{"kind": "effect"}', '{"kind": "x"}', "\x00"):
        (tmp_path / "bad").write_text(content)
        with pytest.raises(DataError, match="holds no sensitivities"):
            Sensitivity.load(tmp_path / "bad")
    with pytest.raises(UnknownNameError, match="Did you mean 'image blocks.1 int8'"):
        found.of("image", "block.1", "int8")


def test_what_cannot_be_measured_is_refused():
    module = build("open_clip CLIP")
    with pytest.raises(UnknownNameError, match="Did you mean 'image'"):
        clipq.sensitivity(module, towers=["imag"], calibration=inputs(module))
    with pytest.raises(UnknownNameError, match="int8"):
        clipq.sensitivity(module, ("int88",), calibration=inputs(module))
    with pytest.raises(QuantizationError, match="already"):
        clipq.sensitivity(clipq.quantize(module, "int8"), calibration=inputs(module))


def test_trials_leave_nothing_behind_when_interrupted():
    module = build("open_clip CLIP")
    host = find_host(module)
    units = units_of(module, host, ("image", "text"))
    trials = Trials(module, host, units, {name: PRECISIONS[name] for name in ("fp16", "int8")})
    parts = dict(module.named_modules())
    tensors = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), trials.tried({u: ("int8", "fp16")[i % 2] for i, u in enumerate(units)}):
        assert any(isinstance(part, QuantizedModule) for part in module.modules())
        raise KeyboardInterrupt
    assert all(part is parts[path] for path, part in module.named_modules())
    assert all(torch.equal(tensors[key], value) for key, value in module.state_dict().items())


def test_differences_by_hand():
    embedded = {"image": torch.eye(3) + 0.5, "text": torch.eye(3)}
    answers = Answers.of(embedded, "image")
    same = answers.difference(embedded["image"])
    assert (same.cosine, same.kl, same.changed, same.drop) == pytest.approx((1, 0, 0, 0))
    moved = answers.difference(embedded["image"][[1, 0, 2]])
    assert moved.changed == pytest.approx(2 / 3)
    rows = torch.nn.functional.normalize(torch.eye(3).double() + 0.5, dim=-1)
    p = (100 * rows).softmax(-1)
    assert moved.drop == pytest.approx(100 * 2 / 3 * float(p[0, 0] - p[0, 1]))
    alone = Answers.of({"image": torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]])}, "image")
    assert alone.difference(alone.inputs).changed == 0  # and no input is its own answer
    assert not math.isnan(alone.difference(alone.inputs).kl)


def test_a_module_without_blocks_has_units_too():
    module = build("open_clip ResNet")
    found = clipq.sensitivity(module, ("int8",), calibration=inputs(module), towers=["image"])
    assert {one.unit for one in found.effects} == {OUTSIDE} and found.noise == ()
    assert isinstance(module, nn.Module)
