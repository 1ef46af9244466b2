"""Static activations: ranges that a step found, in every kernel and every host the same, and safely in the file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from checkpoint_helpers import forge, forge_config, refused
from test_steps import MODELS, embed, inputs
from tiny_models import build, config

import clipq
from clipq.arithmetic import functional
from clipq.arithmetic.observers import OBSERVERS
from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import QuantizationError, SchemeError
from clipq.hosts import find_host
from clipq.kernels import KERNELS
from clipq.methods.finishing import kernel_path, use_kernel
from clipq.methods.quantization import quantize
from clipq.methods.recipes import recipe_of
from clipq.modules.layers import QLinear
from clipq.modules.state import slots

STATIC = PRECISIONS["int8-static"]
NAMES = [name for name in PRECISIONS if name.startswith("int8-static")]
MORE_MODELS = (
    *MODELS,
    "open_clip CLIP QuickGELU",
    "open_clip custom blocks",
    "transformers SigLIP",
    "open_clip timm SigLIP",
)


def static(name: str = "open_clip CLIP", scheme: str | Scheme = "int8-static") -> tuple[clipq.Model, dict]:
    model = clipq.Model(build(name), config=config(name))
    given = inputs(model.module)
    return quantize(model, scheme, calibration=given), given


def answers(model: clipq.Model, given: dict) -> list[torch.Tensor]:
    return [model.encode_image(given["image"]), model.encode_text(given["text"])]


def linears(module) -> dict[str, QLinear]:
    return {name: part for name, part in module.named_modules() if isinstance(part, QLinear)}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return clipq.save(static()[0], tmp_path_factory.mktemp("static") / "m.safetensors")


@pytest.mark.parametrize("name", dict.fromkeys(MORE_MODELS))
def test_a_static_model_is_near_the_float_one(name):
    exact = embed(build(name), inputs(build(name)))
    model, given = static(name)
    for one, expected in zip(answers(model, given), exact, strict=True):
        assert torch.cosine_similarity(one, expected).min() > 0.995
    for part in linears(model.module).values():
        assert part.input_scale.shape == (1,) and part.input_scale.dtype == torch.float32
        assert part.input_zero_point.dtype == torch.int8
        assert float(part.input_scale) > 0


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP", "open_clip timm trunk"])
@pytest.mark.parametrize("precision", NAMES)
def test_a_file_gives_the_same_bits(name, precision, tmp_path):
    model, given = static(name, precision)
    before = answers(model, given)
    again = clipq.load(clipq.save(model, tmp_path / "m.safetensors"))
    assert again.recipe == model.recipe
    assert again.fingerprint() == model.fingerprint()
    for one, other in zip(answers(again, given), before, strict=True):
        assert torch.equal(one, other)
    names = slots(again.module)
    for layer in linears(again.module):
        stem = f"{layer}_" if layer.endswith("in_proj") else f"{layer}."
        assert f"{stem}input_scale" in names
        assert (f"{stem}input_zero_point" in names) == (precision == "int8-static")


@pytest.mark.parametrize("observer", OBSERVERS)
def test_the_same_data_gives_the_same_file_whichever_the_observer(observer, tmp_path):
    scheme, files = replace(STATIC, name="mine", steps=(f"observe-{observer}",)), []
    for name in "ab":
        model = clipq.Model(build("open_clip CLIP"), config=config("open_clip CLIP"))
        quantize(model, {"image": scheme, "text": "fp32"}, calibration=inputs(model.module)["image"])
        files.append(clipq.save(model, tmp_path / f"{name}.safetensors"))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert clipq.load(files[0]).recipe.schemes["image"].steps == (f"observe-{observer}",)


def test_min_max_ranges_are_those_of_what_comes_to_each_linear():
    """Against hooks on the host's own float model, every row of which is looked at."""
    exact = build("open_clip CLIP")
    names = {"visual.transformer.resblocks.0.mlp.c_fc", "visual.transformer.resblocks.1.mlp.c_proj"}
    ends = {}
    for name in names:

        def keep(_, given, name=name):
            low, high = ends.get(name, (0.0, 0.0))
            ends[name] = min(low, float(given[0].min())), max(high, float(given[0].max()))

        exact.get_submodule(name).register_forward_pre_hook(keep)
    with torch.no_grad():
        exact.encode_image(inputs(exact)["image"])
    module = static(scheme=replace(STATIC, steps=("observe-minmax",)))[0].module
    for name in names:
        low, high = (torch.tensor([end]) for end in ends[name])
        scale, zero_point = functional.qparams_of(low, high, STATIC.activations)
        torch.testing.assert_close(module.get_submodule(name).input_scale, scale, rtol=1e-5, atol=0)
        assert abs(int(module.get_submodule(name).input_zero_point) - int(zero_point)) <= 1


@pytest.mark.parametrize("observer", ["minmax", "fisher"])
def test_query_key_and_value_share_a_range_so_that_they_run_as_one(observer):
    module = static("transformers CLIP", replace(STATIC, steps=(f"observe-{observer}",)))[0].module
    found = linears(module)
    for name, part in found.items():
        if name.endswith("q_proj"):
            for other in ("k_proj", "v_proj"):
                twin = found[name.replace("q_proj", other)]
                assert torch.equal(part.input_scale, twin.input_scale)
                assert torch.equal(part.input_zero_point, twin.input_zero_point)
    if "native" in kernel_path(module):
        host = find_host(module)
        for tower in ("image", "text"):
            of = host.tower(module, tower)
            assert of.stack.fits(torch.zeros(1, of.blocks[0].out_proj.out_features))


@pytest.mark.parametrize("name", ["open_clip CLIP", "open_clip timm trunk"])
@pytest.mark.parametrize("precision", NAMES)
def test_every_kernel_computes_the_same_model(name, precision):
    model, given = static(name, precision)
    expected = answers(model, given)
    for kernel in ("reference", "int_mm"):
        if kernel == "int_mm" and KERNELS[kernel].obstacle(torch.device("cpu")):
            continue
        use_kernel(model.module, kernel)
        for one, other in zip(answers(model, given), expected, strict=True):
            assert torch.cosine_similarity(one, other).min() > 0.9999


def test_what_is_beyond_the_range_saturates_and_what_is_not_finite_is_nan():
    model, given = static()
    loud = given["image"] * 50
    assert model.encode_image(loud).isfinite().all()
    loud[1, 0, 3, 3] = float("nan")
    loud[3, 0, 3, 3] = float("inf")
    found = model.encode_image(loud)
    assert found.isnan().all(1).tolist() == [place in (1, 3) for place in range(len(loud))]


def test_exceptions_may_be_dynamic_and_a_block_still_runs_as_one(tmp_path):
    dynamic = replace(PRECISIONS["int8"], name="dynamic")
    scheme = replace(STATIC, name="mixed", exceptions=(("*c_proj", dynamic),))
    model, given = static(scheme=scheme)
    parts = linears(model.module)
    assert parts["visual.transformer.resblocks.0.mlp.c_proj"].input_scale is None
    assert parts["visual.transformer.resblocks.0.mlp.c_fc"].input_scale is not None
    again = clipq.load(clipq.save(model, tmp_path / "m.safetensors"))
    assert torch.equal(again.encode_image(given["image"]), model.encode_image(given["image"]))
    if "native" in kernel_path(model.module):
        assert find_host(model.module).tower(model.module, "image").stack.fits(torch.zeros(1, 64))


@pytest.mark.parametrize(
    "steps",
    [(), ("turn-values",), ("observe-mse", "turn-values"), ("observe-mse", "smooth"), ("observe-mse", "observe-mse")],
)
def test_a_static_scheme_needs_its_ranges_last(steps):
    with pytest.raises(SchemeError, match="observe"):
        quantize(build("open_clip CLIP"), replace(STATIC, steps=steps), calibration=None)


def test_observing_is_refused_where_nothing_is_static():
    with pytest.raises(SchemeError, match="static"):
        quantize(build("open_clip CLIP"), replace(PRECISIONS["int8"], steps=("observe-mse",)))


@pytest.mark.parametrize(
    "wrong", [{"granularity": "token"}, {"granularity": "channel"}, {"dynamic": 0}, {"dynamic": "no"}]
)
def test_a_static_spec_is_one_for_all_rows(wrong):
    with pytest.raises(SchemeError, match="dynamic"):
        QuantSpec(**{"granularity": "tensor", "dynamic": False, **wrong})


def test_weights_are_not_static():
    with pytest.raises(SchemeError, match="dynamic"):
        Scheme("mine", weights=QuantSpec(granularity="tensor", dynamic=False))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_schemes_are_the_same_after_a_file_and_old_ones_say_nothing_new(precision):
    scheme = PRECISIONS[precision]
    values = scheme.to_dict()
    assert Scheme.from_dict(values) == scheme
    static = scheme.activations is not None and not scheme.activations.dynamic
    assert [("dynamic" in (values[key] or {})) for key in ("weights", "activations", "embeddings")] == [
        False,
        static,
        False,
    ]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_named_and_nothing_changes(bad):
    module = build("open_clip CLIP")
    given = inputs(module)
    given["image"][0, 0, 0, 0] = bad
    with pytest.raises(QuantizationError, match=r"visual\.conv1.*not finite"):
        quantize(module, replace(STATIC, steps=("observe-minmax",)), calibration=given)
    assert not linears(module)


# Files that nobody should trust.

SCALE = "visual.transformer.resblocks.0.mlp.c_fc.input_scale"


def overwritten(*content: int):
    def change(entries, data):
        begin, end = entries[SCALE]["data_offsets"]
        data[begin:end] = bytes(content)

    return change


FORGED = {
    "NaN": (overwritten(0, 0, 0xC0, 0x7F), "not finite"),
    "infinite": (overwritten(0, 0, 0x80, 0x7F), "not finite"),
    "zero": (overwritten(0, 0, 0, 0), "not positive"),
    "negative": (overwritten(0, 0, 0x80, 0xBF), "not positive"),
    "missing": (lambda entries, data: entries.update(x=entries.pop(SCALE)), "missing"),
    "integers": (lambda entries, data: entries[SCALE].update(dtype="I32"), "dtype"),
    "a scale a channel": (lambda entries, data: entries[SCALE].update(shape=[1, 1]), "shape"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_range_is_refused(file, case, tmp_path):
    change, said = FORGED[case]
    refused(forge(file, tmp_path / "m.safetensors", change), SCALE, said)


ACCOUNTS = [
    {"image": {"count": 0, "sha256": "0" * 64}},
    {"image": {"count": 3, "sha256": "no"}},
    {"image": {"count": True, "sha256": "0" * 64}},
    {"image": {"count": 3}},
    {"audio": {"count": 3, "sha256": "0" * 64}},
    ["image"],
    "all of ImageNet",
]


@pytest.mark.parametrize("account", ACCOUNTS, ids=str)
def test_a_forged_account_of_the_data_is_refused(file, account, tmp_path):
    change = lambda config: config["recipe"].update(calibration=account)  # noqa: E731
    refused(forge_config(file, tmp_path / "m.safetensors", change), "calibrated on")


def test_what_was_calibrated_on_is_in_the_file(file):
    account = clipq.load(file).recipe.calibration
    given = inputs(build("open_clip CLIP"))
    assert {tower: one["count"] for tower, one in account.items()} == {"image": 24, "text": 24}
    other = {"image": given["image"] + 0.01, "text": given["text"]}
    changed = recipe_of(quantize(build("open_clip CLIP"), "int8-static-minmax", calibration=other)).calibration
    assert changed["text"] == account["text"] and changed["image"]["sha256"] != account["image"]["sha256"]
    assert "calibration" not in recipe_of(quantize(build("open_clip CLIP"), "int8")).to_dict()
