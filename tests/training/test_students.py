"""A student computes what becomes of it: fake-quantized and quantized outputs are the same, in every host."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import BUILDERS, build, config

import clipq
from clipq.arithmetic import functional
from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import SchemeError
from clipq.hosts import find_host
from clipq.methods.finishing import use_kernel
from clipq.modules.state import slots
from clipq.training.students import make_student

pytestmark = pytest.mark.filterwarnings("ignore:groups or codebooks with int8 activations")
TOKENS = QuantSpec(symmetric=False, granularity="token")
FP32 = {"fallback": "fp32"}
SCHEMES = {
    "int8": replace(PRECISIONS["int8"], **FP32),
    "int8-symmetric": replace(PRECISIONS["int8-symmetric"], **FP32),
    "int8-weight-only": replace(PRECISIONS["int8-weight-only"], **FP32),
    "one range for all rows": Scheme("mine", activations=QuantSpec(granularity="tensor"), **FP32),
    "asymmetric weights": Scheme("mine", QuantSpec(symmetric=False), TOKENS, **FP32),
    "one scale a tensor": Scheme("mine", QuantSpec(granularity="tensor"), TOKENS, **FP32),
    "int4 weights": Scheme("mine", QuantSpec(bits=4), TOKENS, **FP32),
    "int4 groups, real zero points": Scheme(
        "mine",
        QuantSpec(symmetric=False, granularity="group", group_size=8, bits=4, float_zero_point=True),
        **FP32,
    ),
    "int4 groups": Scheme("mine", QuantSpec(granularity="group", group_size=8, bits=4), TOKENS, **FP32),
}


def inputs(module) -> dict[str, torch.Tensor]:
    host, generator = find_host(module), torch.Generator().manual_seed(7)
    found = {"image": torch.randn(6, *host.pixel_shape(module), generator=generator)}
    if "text" in host.towers(module):
        found["text"] = torch.randint(2, 95, (6, host.context_length(module)), generator=generator)
        found["text"][:, -1] = 99
    return found


def student_of(module, scheme: Scheme, mode: str = "light"):
    given = inputs(module)
    return make_student(module, dict.fromkeys(given, scheme), {key: [one] for key, one in given.items()}, mode), given


def disturb(student) -> None:
    """Move every parameter that would be trained."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, one in student.parameters().items():
            size = 0.3 if name.endswith("zero_point") else 0.03
            one += size * torch.randn(one.shape, generator=generator)


@torch.no_grad()
def check_settling(student, given) -> None:
    """By the kernel that defines the numbers they are equal but for the order of sums; by the fastest one, where a

    value halfway between two integers may be rounded the other way, random weights make more of that than trained ones.
    """
    before = {tower: student.encode(tower, one) for tower, one in given.items()}
    model = clipq.Model(student.settle())
    weight_only = student.recipe.schemes["image"].activations is None
    for kernel, most in (("dequantize" if weight_only else "reference", 1e-3), (None, 2e-2)):
        use_kernel(model.module, kernel)
        after = {"image": model.encode_image(given["image"])}
        after |= {"text": model.encode_text(given["text"])} if "text" in given else {}
        assert all((one - after[tower]).norm() < most * one.norm() for tower, one in before.items())
    assert model.precision == dict.fromkeys(given, student.recipe.schemes["image"].name)


@pytest.mark.parametrize("name", BUILDERS)
def test_what_was_computed_is_what_comes_back_in_every_host(name):
    student, given = student_of(build(name), SCHEMES["int8"], "full")
    disturb(student)
    check_settling(student, given)


@pytest.mark.parametrize("mode", ["light", "full"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_was_computed_is_what_comes_back_in_every_scheme(scheme, mode):
    student, given = student_of(build("open_clip CLIP"), SCHEMES[scheme], mode)
    disturb(student)
    check_settling(student, given)


def test_what_comes_back_is_a_plain_file(tmp_path):
    student, given = student_of(build("open_clip CLIP"), SCHEMES["int4 weights"])
    disturb(student)
    module = student.settle()
    plain = clipq.quantize(build("open_clip CLIP"), SCHEMES["int4 weights"])
    kinds = [{name: (one.tensor.dtype, one.tensor.shape) for name, one in slots(m).items()} for m in (module, plain)]
    assert kinds[0] == kinds[1]
    model = clipq.Model(module, config=config("open_clip CLIP"))
    again = clipq.load(clipq.save(model, tmp_path / "x.safetensors"))
    assert torch.equal(again.encode_image(given["image"]), model.encode_image(given["image"]))
    assert not any(one.requires_grad for one in again.module.parameters())


@pytest.mark.parametrize("steps", [("gptq",), ("turn-values", "gptq")])
def test_a_student_begins_with_what_the_steps_of_its_scheme_chose(steps):
    student, _ = student_of(build("open_clip CLIP"), replace(SCHEMES["int4 groups"], name="mine", steps=steps))
    chosen = {name: fake.floats.rounded for name, fake in student.fakes.items()}
    student.settle()
    for name, (q, scale, _) in chosen.items():
        weights = student.fakes[name].floats.layer.kernel_weights()
        assert torch.equal(weights.dequantized(), functional.dequantize(q, scale, torch.zeros(()), weights.spec))


def test_light_trains_no_matrix_and_full_all():
    light, _ = student_of(build("open_clip CLIP"), SCHEMES["int8"])
    full, _ = student_of(build("open_clip CLIP"), SCHEMES["int8"], "full")
    named = {key.rpartition(".")[2] for key in light.parameters()}
    assert named == {"steps", "bias", "weight", "class_embedding"}
    matrices = {key for key, one in light.parameters().items() if one.ndim > 1 and not key.endswith(".steps")}
    assert not matrices
    floats = sum(one.numel() for one in build("open_clip CLIP").parameters())
    embedding = 49408 * 32  # its rows stay as they were rounded
    factors = sum(one.numel() for key, one in light.parameters().items() if key.endswith(".steps"))
    assert sum(one.numel() for one in full.parameters().values()) == floats - embedding - 1 + factors


def test_gradients_reach_all_that_is_trained():
    student, given = student_of(build("open_clip CLIP"), SCHEMES["asymmetric weights"], "full")
    sum(student.encode(tower, one).square().sum() for tower, one in given.items()).backward()
    silent = [name for name, one in student.parameters().items() if one.grad is None or not one.grad.any()]
    assert all(name.endswith("zero_point") for name in silent)  # nothing is beyond the range yet


def test_a_model_is_not_changed_by_its_student():
    module = build("transformers SigLIP")
    before = {name: one.clone() for name, one in module.state_dict().items()}
    student, _ = student_of(module, SCHEMES["int8"], "full")
    disturb(student)
    after = module.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(one, after[name]) for name, one in before.items())


def test_codebooks_have_no_step_sizes():
    scheme = Scheme("mine", QuantSpec(bits=4, codebook="nf4"), **FP32)
    with pytest.raises(SchemeError, match="codebook"):
        student_of(build("open_clip CLIP"), scheme)
