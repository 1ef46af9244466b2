"""Every precision of fewer than 8 bits on every small model: quantized, saved, read bit-equal, told truthfully."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from checkpoint_helpers import assert_same, embeddings
from tiny_models import BUILDERS, build, config

import clipq
from clipq.arithmetic.low_bits import LOW_BITS
from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import ClipqWarning, SchemeError
from clipq.files.saving import quantization_config
from clipq.kernels.cpu import NativeLinear
from clipq.kernels.reference import ReferenceLinear
from clipq.methods.finishing import use_kernel
from clipq.methods.steps import is_calibrated
from clipq.models import Model
from clipq.modules.layers import QLinear, QuantizedModule

ONE = "transformers CLIP"
GROUPS = QuantSpec(False, "group", 32, 4, group_size_fallback="adjust")
MORE = {
    "kmeans": Scheme("kmeans", QuantSpec(bits=3, codebook="kmeans")),
    "symmetric": Scheme("symmetric", replace(GROUPS, symmetric=True, bits=3)),
    "w4a8 in groups": Scheme("groups", GROUPS, QuantSpec(symmetric=False, granularity="token")),
}
WORST = {"int4": 0.94, "int4-gptq": 0.97, "nf4": 0.9, "int3": 0.9, "int2": 0.5, "w4a8": 0.95}
"""The least cosine with float's embeddings that random weights leave."""

SOME = ("open_clip CLIP", ONE, "open_clip timm SigLIP")
PAIRS = [  # one precision on every model; the others add only arithmetic
    (precision, name)
    for precision in LOW_BITS
    for name in (BUILDERS if precision == "int4" else SOME)
    if name != "open_clip ResNet"
]
PAIRS += [("w4a8", name) for name in ("open_clip CoCa", "transformers DINOv3", "timm vision_transformer")]
"""And those whose activations are rounded on a model of each host that is built otherwise."""


def quantized(name: str, scheme: Scheme) -> Model:
    model = Model(build(name), config=config(name))
    return clipq.quantize(model, scheme, calibration=inputs(model) if is_calibrated(scheme) else None)


def inputs(model: Model) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    found = {"image": torch.randn(24, *model.host.pixel_shape(model.module), generator=generator)}
    if "text" in model.towers:
        ids = torch.randint(2, 95, (24, model.host.context_length(model.module)), generator=generator)
        ids[:, -1] = 99 if model.host.name == "transformers" else 49407
        found["text"] = ids
    return found


@pytest.mark.filterwarnings("ignore:.* matrix weights stay float:clipq.errors.ClipqWarning")
@pytest.mark.parametrize(("precision", "name"), PAIRS)
def test_every_model_in_every_precision(precision, name, tmp_path):
    model = quantized(name, LOW_BITS[precision])
    kinds = {part.spec.label for part in model.module.modules() if isinstance(part, QLinear)}
    assert LOW_BITS[precision].weights.label in kinds
    again = clipq.load(clipq.save(model, tmp_path / "m.safetensors"))
    assert_same(model, again)
    exact = embeddings(Model(build(name), config=config(name)))
    for one, other in zip(embeddings(model), exact, strict=True):
        assert torch.cosine_similarity(one, other).mean() > WORST[precision]


@pytest.mark.filterwarnings("ignore:.* matrix weights stay float:clipq.errors.ClipqWarning")
def test_a_resnet(tmp_path):
    """In one precision: it is large."""
    model = quantized("open_clip ResNet", LOW_BITS["int4"])
    assert_same(model, clipq.load(clipq.save(model, tmp_path / "m.safetensors")))


@pytest.mark.filterwarnings("ignore:groups or codebooks with int8 activations:clipq.errors.ClipqWarning")
@pytest.mark.parametrize("scheme", MORE.values(), ids=MORE)
def test_schemes_of_ones_own(scheme, tmp_path):
    model = quantized(ONE, scheme)
    assert_same(model, clipq.load(clipq.save(model, tmp_path / "m.safetensors")))
    exact = embeddings(Model(build(ONE)))
    assert min(torch.cosine_similarity(a, b).min() for a, b in zip(embeddings(model), exact, strict=True)) > 0.8


def test_fewer_bits_make_smaller_files_and_models(tmp_path):
    sizes = {}
    for precision in ("int8-weight-only", "int4", "int3"):
        scheme = replace(PRECISIONS[precision], steps=(), exceptions=())
        sizes[precision] = sum(
            part.qweight.nbytes for part in quantized(ONE, scheme).module.modules() if isinstance(part, QLinear)
        )
    assert sizes["int4"] == sizes["int8-weight-only"] / 2
    assert sizes["int3"] == sizes["int8-weight-only"] * 3 / 8


def test_coverage_and_configuration_say_the_bits():
    model = quantized(ONE, replace(LOW_BITS["int4"], exceptions=LOW_BITS["nf4"].exceptions))
    report = clipq.coverage(model)
    image = report.towers["image"]
    assert list(image.weights_of) == ["int4", "int8"]
    assert image.weights_of["int8"] == 64 * 3 * 8 * 8
    assert 4.5 < image.bits_per_weight < 8
    first = clipq.coverage(quantized(ONE, LOW_BITS["int4"])).towers["image"]
    assert first.weights_of["int8"] > image.weights_of["int8"]
    assert "int4" in str(report) and "image: int8" not in str(report)
    kinds = [("num_bits", "type", "group_size"), (4, "int", 64), (8, "int", None)]
    groups = [one["weights"] for one in quantization_config(model)["config_groups"].values()]
    assert {tuple(group[key] for key in kinds[0]) for group in groups} == set(kinds[1:])
    groups = quantization_config(quantized(ONE, LOW_BITS["nf4"]))["config_groups"].values()
    assert (4, "nf4") in {(one["weights"]["num_bits"], one["weights"]["type"]) for one in groups}
    assert list(clipq.coverage(quantized(ONE, Scheme("int8"))).towers["text"].weights_of) == ["int8"]


def test_a_width_that_no_group_divides():
    wide = {"text": replace(GROUPS, group_size=48, group_size_fallback="keep")}
    model = quantized(ONE, Scheme("mine", wide["text"]))
    kept = {part.in_features for part in model.module.modules() if isinstance(part, QLinear) and part.spec.bits == 8}
    assert kept == {32, 64, 128}
    assert "int8" in str(clipq.coverage(model))
    with pytest.raises(SchemeError, match=r"has \d+ inputs, which do not divide into groups of 48"):
        quantized(ONE, Scheme("mine", replace(GROUPS, group_size=48, group_size_fallback="error")))


def test_weights_of_4_bits_run_on_the_native_kernel_as_the_int8_that_they_are():
    model = quantized(ONE, LOW_BITS["w4a8"])
    four = [part for part in model.module.modules() if isinstance(part, QLinear) and part.spec.bits == 4]
    x = torch.randn(5, 64)
    for layer in (part for part in four if part.in_features == 64):
        weights = layer.kernel_weights(layer.bias, layer.activations)
        assert torch.equal(weights.integers.float() * weights.row_scale()[:, None], weights.dequantized())
        if NativeLinear.obstacle(x.device) is None:
            assert layer.kernel_name().startswith("native")
            assert torch.allclose(NativeLinear(weights)(x), ReferenceLinear(weights)(x), rtol=1e-4, atol=1e-5)
    found = embeddings(model)
    use_kernel(model.module, "reference")
    for one, other in zip(found, embeddings(model), strict=True):
        assert torch.cosine_similarity(one, other).min() > 0.999


def test_what_no_fast_kernel_computes_is_said():
    with pytest.warns(ClipqWarning, match="run on plain torch"):
        quantized(ONE, MORE["w4a8 in groups"])


def test_casting_the_surroundings_keeps_scales_and_zero_points():
    module = quantized(ONE, LOW_BITS["int4"]).module
    parts = [part for part in module.modules() if isinstance(part, QuantizedModule) and part.spec.bits == 4]
    before = [(part.qweight, part.weight_scale, part.weight_zero_point) for part in parts]
    module.to(torch.bfloat16)
    for part, tensors in zip(parts, before, strict=True):
        for old, new in zip(tensors, (part.qweight, part.weight_scale, part.weight_zero_point), strict=True):
            assert old.dtype == new.dtype and torch.equal(old, new)
