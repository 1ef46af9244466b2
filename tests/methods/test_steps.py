"""The steps between float weights and integers: the same function where they promise it, less error, or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import build, open_clip_config

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.schemes import Scheme
from clipq.errors import QuantizationError, SchemeError, UnknownNameError
from clipq.hosts import find_host
from clipq.methods import steps
from clipq.methods.quantization import quantize
from clipq.methods.recipes import recipe_of
from clipq.methods.steps import STEPS, Step
from clipq.modules.layers import QLinear, QuantizedModule
from clipq.modules.state import slots

MODELS = ("open_clip CLIP", "transformers SigLIP", "open_clip timm trunk", "transformers CLIP")
INT8 = PRECISIONS["int8"]


def with_steps(*names: str, scheme: Scheme = INT8) -> Scheme:
    return replace(scheme, name="mine", steps=names)


def inputs(module, count: int = 24) -> dict[str, torch.Tensor]:
    host, generator = find_host(module), torch.Generator().manual_seed(7)
    pixels = torch.randn(count, *host.pixel_shape(module), generator=generator)
    ids = torch.randint(2, 95, (count, host.context_length(module)), generator=generator)
    ids[:, -1] = 99
    return {"image": pixels, "text": ids}


def with_outliers(module: torch.nn.Module) -> torch.nn.Module:
    """The norms of trained towers have channels much larger than the others."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.LayerNorm):
                part.weight[::7] *= 6
                part.bias[::5] += 2
    return module


def embed(module, given) -> list[torch.Tensor]:
    model = clipq.Model(module)
    return [model.encode_image(given["image"]), model.encode_text(given["text"])]


@pytest.fixture
def watched(monkeypatch) -> list:
    """Two more steps, "watch" and "fail": one keeps what the float tower gives, the other raises."""
    seen = []

    def fail(work) -> None:
        raise KeyboardInterrupt

    more = {"watch": Step(lambda work: seen.append(work.embeddings()), True), "fail": Step(fail, False)}
    monkeypatch.setattr(steps, "STEPS", {**STEPS, **more})
    return seen


@pytest.mark.parametrize("step", ["turn-values", "smooth"])
@pytest.mark.parametrize("name", MODELS)
def test_what_makes_rounding_easier_is_the_same_function(name, step, watched):
    module = with_outliers(build(name))
    given = inputs(module)
    exact = embed(module, given)
    floats = replace(INT8, embeddings=None)
    quantize(module, with_steps("watch", step, "watch", scheme=floats), calibration=given)
    for before, after, expected in zip(watched[::2], watched[1::2], exact, strict=True):
        assert torch.allclose(before, expected, rtol=1e-4, atol=1e-5)
        assert torch.allclose(after, expected, rtol=1e-4, atol=1e-5)
    plain = quantize(with_outliers(build(name)), floats)
    turned = [m for m in module.modules() if isinstance(m, QLinear)]
    untouched = [m for m in plain.modules() if isinstance(m, QLinear)]
    assert sum(not torch.equal(a.qweight, b.qweight) for a, b in zip(turned, untouched, strict=True)) >= 4


@pytest.mark.parametrize("name", MODELS)
def test_rounding_by_inputs_is_closer_than_to_nearest(name):
    weight_only = PRECISIONS["int8-weight-only"]
    given = inputs(build(name))
    exact = embed(build(name), given)
    nearest = embed(quantize(build(name), weight_only), given)
    found = embed(quantize(build(name), with_steps("gptq", scheme=weight_only), calibration=given), given)
    for one, other, expected in zip(found, nearest, exact, strict=True):
        assert (one - expected).norm() < 0.95 * (other - expected).norm()


@pytest.mark.parametrize("fail_at", [("fail",), ("turn-values", "watch", "fail"), ("smooth", "gptq", "fail")])
def test_a_step_that_fails_leaves_the_model_as_it_was(fail_at, watched):
    module = build("open_clip CLIP")
    given = inputs(module)
    before, tensors = embed(module, given), {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        quantize(module, with_steps(*fail_at), calibration=given if len(fail_at) > 1 else None)
    assert not any(isinstance(part, QuantizedModule) for part in module.modules())
    after = module.state_dict()
    assert tensors.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) for key, tensor in tensors.items())
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(before, embed(module, given), strict=True))
    quantize(module, with_steps("gptq"), calibration=given)  # and it can still be quantized


def test_the_same_steps_give_the_same_file(tmp_path):
    files = []
    for name in "ab":
        module = build("open_clip CLIP")
        quantize(module, "int8-best", calibration=inputs(module))
        model = clipq.Model(module, config=open_clip_config())
        files.append(clipq.save(model, tmp_path / f"{name}.safetensors"))
    assert files[0].read_bytes() == files[1].read_bytes()
    again = clipq.load(files[0])
    assert again.precision_name == "int8-best"
    assert again.recipe.schemes["image"].steps == PRECISIONS["int8-best"].steps
    given = inputs(module)
    assert torch.equal(again.encode_image(given["image"]), clipq.Model(module).encode_image(given["image"]))


def test_a_step_that_is_none_is_named_before_anything_changes():
    module = build("open_clip CLIP")
    with pytest.raises(UnknownNameError, match="turn-values"):
        quantize(module, with_steps("turn-value"))
    assert not any(isinstance(part, QuantizedModule) for part in module.modules())


def test_exceptions_say_how_single_modules_are_quantized(tmp_path):
    module = build("open_clip CLIP")
    given = inputs(module)
    exact = embed(module, given)
    exceptions = (("visual.*.0.mlp.c_proj", PRECISIONS["fp32"]), ("*.1.attn", PRECISIONS["int8-weight-only"]))
    quantize(module, replace(INT8, name="mixed", exceptions=exceptions))
    linears = {name: part for name, part in module.named_modules() if isinstance(part, QLinear)}
    assert "visual.transformer.resblocks.0.mlp.c_proj" not in linears
    assert linears["visual.transformer.resblocks.1.attn.in_proj"].activations is None
    assert linears["transformer.resblocks.1.attn.out_proj"].activations is None
    assert linears["visual.transformer.resblocks.0.attn.in_proj"].activations == INT8.activations
    found = embed(module, given)
    assert min(torch.cosine_similarity(a, b).min() for a, b in zip(exact, found, strict=True)) > 0.998
    again = clipq.load(clipq.save(clipq.Model(module, config=open_clip_config()), tmp_path / "mixed.safetensors"))
    assert again.recipe == recipe_of(module)
    assert torch.equal(again.encode_image(given["image"]), found[0])
    assert set(slots(again.module)) == set(slots(module))


@pytest.mark.parametrize("wrong", [{"steps": "gptq"}, {"steps": (3,)}, {"exceptions": ((3, INT8),)}])
def test_steps_and_exceptions_are_checked(wrong):
    with pytest.raises(SchemeError):
        replace(INT8, **wrong)


def test_exceptions_have_none_of_their_own():
    with pytest.raises(SchemeError, match="of its own"):
        replace(INT8, exceptions=(("*", with_steps("gptq")),))


@pytest.mark.parametrize("calibration", [{"image": torch.zeros(2, 3, 32, 32)}, torch.zeros(2, 3, 32, 32)])
def test_data_that_nothing_would_look_at_is_refused(calibration):
    with pytest.raises(QuantizationError, match="leave out"):
        quantize(build("open_clip CLIP"), "int8", calibration=calibration)
