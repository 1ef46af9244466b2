"""`quantize`: in place, whole, per tower, in every precision; refused before anything has changed."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from tiny_models import build, open_clip_config
from torch import nn

import clipq
from clipq import kernels
from clipq.arithmetic.functional import sqnr
from clipq.arithmetic.low_bits import LOW_BITS
from clipq.arithmetic.precisions import PRECISIONS, per_tower
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import CheckpointError, ClipqWarning, QuantizationError, SchemeError, UnknownNameError
from clipq.hosts import find_host
from clipq.methods.dtypes import fallback_dtype
from clipq.methods.finishing import kernel_path, use_kernel
from clipq.methods.quantization import quantize
from clipq.methods.recipes import Recipe, recipe_of
from clipq.methods.replacing import plan, rebuild
from clipq.methods.steps import is_calibrated
from clipq.modules.layers import QLinear, QuantizedModule
from clipq.modules.raw import fingerprint

MODELS = ("open_clip CLIP", "transformers SigLIP", "open_clip timm trunk")
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def inputs(module: nn.Module) -> dict[str, torch.Tensor]:
    """Fixed random pixels and token ids."""
    host, generator = find_host(module), torch.Generator().manual_seed(3)
    pixels = torch.randn(3, *host.pixel_shape(module), generator=generator)
    tokens = torch.randint(2, 95, (3, host.context_length(module)), generator=generator)
    tokens[:, -1] = 99
    return {"image": pixels, "text": tokens}


def embed(module: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of these, float32, through the public face."""
    model, given = clipq.Model(module), inputs(module)
    return model.encode_image(given["image"]), model.encode_text(given["text"])


def similarity(one, other) -> list[float]:
    return [torch.cosine_similarity(a, b).min().item() for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", sorted(PRECISIONS.keys() - LOW_BITS))
def test_every_precision_stays_close_to_fp32(name, precision):
    module = build(name)
    exact = embed(module)
    calibration = inputs(module) if is_calibrated(PRECISIONS[precision]) else None
    assert quantize(module, precision, calibration=calibration) is module
    least = 0.98 if "fp8" in precision else 0.998 if "static" in precision else 0.999  # fp8: 3 bits of mantissa
    assert min(similarity(exact, embed(module))) > least
    assert set(recipe_of(module).precision.values()) == {precision}
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.training


def test_weight_only_is_closer_than_dynamic():
    exact = embed(build("open_clip CLIP"))[0]
    noise = {
        name: sqnr(exact, embed(quantize(build("open_clip CLIP"), name))[0]).item()
        for name in ("int8-weight-only", "int8")
    }
    assert noise["int8-weight-only"] > noise["int8"] > 30  # dB


def test_towers_may_differ_and_a_tower_left_out_stays_fp32():
    module = build("open_clip CLIP")
    exact = embed(module)
    quantize(module, {"image": "int8"})
    image, text = embed(module)
    assert not torch.allclose(image, exact[0], rtol=1e-4, atol=1e-4)
    assert torch.allclose(text, exact[1], rtol=1e-5, atol=1e-5)
    assert recipe_of(module).precision == {"image": "int8", "text": "fp32"}
    mixed = quantize(build("open_clip CLIP"), {"image": "int8", "text": "fp16"})
    assert mixed.token_embedding.weight.dtype == torch.float16
    assert min(similarity(exact, embed(mixed))) > 0.999


@pytest.mark.parametrize("fallback", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_the_fallback_precision_is_that_of_all_that_stays_float(name, fallback):
    module = build(name)
    exact = embed(module)
    quantize(module, fallback=fallback)
    dtype = HALVES.get(fallback, torch.float32)
    host = find_host(module)
    for key, parameter in module.named_parameters():
        assert host.tower_of(module, key) is None or parameter.dtype == dtype, key
    assert all(m.weight_scale.dtype == torch.float32 for m in module.modules() if isinstance(m, QuantizedModule))
    assert min(similarity(exact, embed(module))) > 0.998


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_outliers_of_the_size_of_clips_do_not_overflow_in_fp16(precision):
    module = build("open_clip CLIP QuickGELU")
    with torch.no_grad():
        for blocks in (module.visual.transformer.resblocks, module.transformer.resblocks):
            for block in blocks:  # a few channels of the residual stream in the hundreds, as in trained CLIPs
                block.mlp.c_proj.bias[:3] += torch.tensor([400.0, -300.0, 200.0])
                block.mlp.c_fc.bias[:3] += 300.0
                block.attn.in_proj_bias[:8] += 40.0
    exact = embed(module)
    found = embed(quantize(module, precision, fallback="fp16"))
    assert all(torch.isfinite(x).all() for x in found)
    assert min(similarity(exact, found)) > 0.99


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_model_that_open_clip_made_for_fp16_is_taken(precision):
    import open_clip

    config = open_clip_config()
    torch.manual_seed(0)
    module = open_clip.CLIP(**config, cast_dtype=torch.float16).eval()
    assert any(type(part).__name__ == "LayerNormFp32" for part in module.modules())
    exact = embed(module)
    assert min(similarity(exact, embed(quantize(module, precision, fallback="fp16")))) > 0.999


def test_a_custom_scheme_is_used():
    scheme = Scheme(
        "mine",
        weights=QuantSpec(symmetric=False, granularity="group", group_size=16),
        activations=QuantSpec(granularity="tensor"),
        embeddings=None,
    )
    module = build("open_clip CLIP")
    exact = embed(module)
    quantize(module, scheme)
    layer = module.transformer.resblocks[0].mlp.c_fc
    assert layer.weight_scale.shape == (128, 2, 1)
    assert layer.weight_zero_point.dtype == torch.int8
    assert isinstance(module.token_embedding, nn.Embedding)
    assert min(similarity(exact, embed(module))) > 0.998
    assert kernel_path(module) == "reference"


def test_quantizing_twice_is_refused():
    module = quantize(build("open_clip CLIP"))
    with pytest.raises(QuantizationError, match="quantized already"):
        quantize(module, "int8-weight-only")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_named_and_nothing_has_changed(value):
    module = build("open_clip CLIP")
    with torch.no_grad():
        module.transformer.resblocks[1].mlp.c_proj.weight[3, 4] = value
    before = fingerprint(module)
    with pytest.raises(QuantizationError, match=r"transformer\.resblocks\.1\.mlp\.c_proj\.weight holds 1 non-finite"):
        quantize(module)
    assert fingerprint(module) == before
    assert not any(isinstance(part, QuantizedModule) for part in module.modules())


@pytest.mark.parametrize(
    ("precision", "fallback", "error", "message"),
    [
        ("int9", None, UnknownNameError, "Did you mean 'int8'"),
        ({"images": "int8"}, None, UnknownNameError, "Did you mean 'image'"),
        ("int8", "fp61", UnknownNameError, "Did you mean 'fp16'"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(precision, fallback, error, message):
    with pytest.raises(error, match=message):
        quantize(build("timm vision_transformer"), precision, fallback=fallback)


def test_kernels_can_be_forced_and_agree():
    module = quantize(build("open_clip CLIP"))
    found = {}
    for kernel in ("reference", "int_mm", None):
        use_kernel(module, kernel)
        found[kernel] = embed(module)
        assert kernel is None or kernel_path(module) == kernel
    # A value that rounding tips over the edge of an int8 step moves an embedding by far less than quantization did.
    assert min(similarity(found["reference"], found["int_mm"])) > 0.99999
    assert min(similarity(found["reference"], found[None])) > 0.99999
    use_kernel(module, "int-mm")
    with pytest.raises(UnknownNameError, match="Did you mean 'int_mm'"):
        embed(module)


def test_copies_compute_the_same():
    module = quantize(build("open_clip custom blocks"))
    twin = copy.deepcopy(module)
    assert all(torch.equal(a, b) for a, b in zip(embed(module), embed(twin), strict=True))
    assert fingerprint(module) == fingerprint(twin)
    assert recipe_of(twin) == recipe_of(module)


def test_a_clipq_model_is_quantized_in_place_too():
    model = clipq.Model(build("open_clip CLIP"))
    assert clipq.quantize(model, "int8-weight-only") is model
    assert model.precision_name == "int8-weight-only"


def test_no_warning_where_only_heads_and_positions_stay_float():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ClipqWarning)
        quantize(build("transformers CLIP"))


def test_where_no_fast_kernel_runs_the_user_is_told(monkeypatch):
    for name in ("native", "int_mm"):
        monkeypatch.setattr(kernels.KERNELS[name], "obstacle", staticmethod(lambda device: "not on this machine"))
    with pytest.warns(ClipqWarning, match="int8 runs on plain torch on this cpu, slower than fp32"):
        quantize(build("timm vision_transformer"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(build("timm vision_transformer"), "int8-weight-only")


def test_without_the_native_library_the_user_is_told_what_is_missing(monkeypatch):
    monkeypatch.setattr(kernels.KERNELS["native"], "obstacle", staticmethod(lambda device: "there is no compiler."))
    monkeypatch.setattr(kernels.KERNELS["int_mm"], "obstacle", staticmethod(lambda device: None))
    says = "runs on int_mm, not on clipq's own kernels, on this cpu, often slower than fp32; there is no compiler.$"
    with pytest.warns(ClipqWarning, match=says):
        quantize(build("timm vision_transformer"))


def test_recipes_survive_json_and_must_fit_the_architecture():
    module = build("open_clip CLIP")
    host = find_host(module)
    schemes = per_tower("int8")
    recipe = Recipe(schemes, plan(host, module, schemes))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    for modules in ({"visual.conv9": "linear"}, {"visual.conv1": "conv"}, {"ln_final": "embedding"}):
        with pytest.raises(CheckpointError, match="does not fit the architecture"):
            rebuild(copy.deepcopy(module), host, Recipe(schemes, modules))


def test_the_automatic_fallback_follows_the_device():
    scheme = PRECISIONS["int8"]
    assert fallback_dtype(scheme, torch.device("cuda")) == torch.float16
    assert fallback_dtype(Scheme("x", fallback="bf16"), torch.device("cuda")) == torch.bfloat16
    with pytest.raises(SchemeError):
        Scheme("contradiction", weights=None, activations=QuantSpec(), embeddings=None)


def test_an_untouched_model_says_its_own_precision():
    assert recipe_of(build("open_clip CLIP")).precision == {"image": "fp32", "text": "fp32"}
    assert recipe_of(build("open_clip CLIP").half()).precision == {"image": "fp16", "text": "fp16"}
    assert not any(isinstance(part, QLinear) for part in build("open_clip CLIP").modules())
