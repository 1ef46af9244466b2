"""Whole stacks in one native call against the same blocks step by step: its error, its rows, when it steps aside."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from fused_helpers import by_reference, exact, fused, keeps, linears, model, rms, rows_for, tower, use
from torch import Tensor, nn

from clipq.arithmetic.precisions import PRECISIONS, resolve
from clipq.arithmetic.schemes import Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import QuantizationError
from clipq.modules.layers import QLinear
from clipq.native import library
from clipq.towers.fused import FusedStack
from clipq.towers.rows import Tower, run_image
from clipq.towers.transformer import Block, Sequences, run_blocks

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")
PATHS = library.supported_paths()
CASES = {
    "GELU": ("open_clip CLIP", "image"),
    "QuickGELU": ("open_clip CLIP QuickGELU", "image"),
    "layer scale": ("open_clip drops and scales", "image"),
    "causal": ("open_clip CLIP", "text"),
    "three projections": ("transformers CLIP", "image"),
    "three projections, causal": ("transformers CLIP", "text"),
    "tanh": ("transformers SigLIP", "image"),
    "tanh, both ways": ("transformers SigLIP", "text"),
    "ViT": ("transformers ViT", "image"),
    "DINOv2": ("transformers DINOv2", "image"),
    "timm": ("timm vision_transformer", "image"),
    "timm scales": ("timm scales", "image"),
    "gates": ("timm gates", "image"),
    "RMSNorm": ("timm RMSNorm", "image"),
    "EVA02": ("timm EVA02", "image"),
    "EVA02, packed": ("timm EVA02, packed", "image"),
    "PE-Core": ("timm PE-Core", "image"),
    "DINOv3": ("transformers DINOv3", "image"),
    "DINOv3, gated": ("timm DINOv3, gated", "image"),
    "RoPE": ("timm RoPE, axial", "image"),
    "normed queries, causal": ("open_clip normed queries in the text", "text"),
}
LENGTHS = {"equal": [6, 6, 6], "mixed": [3, 7, 1, 4], "one": [5], "single rows": [1, 1]}
EACH = 1.5
"""Of the reference's own error in one case of few values; the issue allows 2."""
ON_AVERAGE = 1.2


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_its_error_is_that_of_the_reference(case: str, path: str) -> None:
    ratios = []
    for seed in range(2):
        of = tower(*CASES[case], seed=seed)
        use(of, f"native/{path}")
        for lengths in LENGTHS.values():
            x, sequences = rows_for(of, lengths)
            for keep in keeps(sequences)[:3]:
                truth = exact(of, x, sequences, keep)
                found, expected = fused(of, x, sequences, keep), by_reference(of, x, sequences, keep)
                assert found.shape == expected.shape and found.dtype == expected.dtype
                ratios.append(rms(found - truth) / rms(expected - truth))
    assert max(ratios) <= EACH, ratios
    assert sum(ratios) / len(ratios) <= ON_AVERAGE, ratios


@torch.inference_mode()
def test_the_error_is_one_of_quantization_and_not_of_arithmetic() -> None:
    """Otherwise the ratio above would pass with a wrong block and a wrong reference."""
    of = tower("open_clip CLIP")
    x, sequences = rows_for(of, [6, 6])
    truth = exact(of, x, sequences, None)
    assert 1e-4 < rms(by_reference(of, x, sequences) - truth) / rms(truth - x) < 0.05
    assert rms(truth - x) > 0.3


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_kept_rows_are_those_of_the_whole(case: str) -> None:
    of = tower(*CASES[case])
    for lengths in LENGTHS.values():
        x, sequences = rows_for(of, lengths)
        before = x.clone()
        whole = fused(of, x, sequences)
        for keep in keeps(sequences)[1:]:
            assert torch.equal(fused(of, x, sequences, keep), whole[keep])
        assert torch.equal(x, before)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", ["GELU", "causal", "timm scales", "EVA02", "DINOv3, gated"])
@torch.inference_mode()
def test_any_number_of_threads_and_any_company_give_the_same_bits(case: str, path: str) -> None:
    of = tower(*CASES[case])
    use(of, f"native/{path}")
    x, sequences = rows_for(of, [9, 3, 30, 1, 17, 64])
    keep = sequences.offsets[1:] - 1
    before = torch.get_num_threads()
    try:
        whole, kept = [], []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            whole.append(fused(of, x, sequences))
            kept.append(fused(of, x, sequences, keep))
    finally:
        torch.set_num_threads(before)
    for other in range(1, 3):
        assert torch.equal(whole[0], whole[other]) and torch.equal(kept[0], kept[other])
    alone = [
        fused(of, part, Sequences.of_lengths(torch.tensor([len(part)]), sequences.rotary))
        for part in x.split([9, 3, 30, 1, 17, 64])
    ]
    assert torch.equal(torch.cat(alone), whole[0])


class QuickGELU(nn.Module):
    """Has the name of another activation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class LayerNorm(nn.LayerNorm):
    """Has the name and the parameters of the usual one."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def swapped(**parts: Callable[[Block], object]) -> Callable[[Tower], tuple[Block, ...]]:
    """The blocks with parts of the last one replaced."""

    def change(of: Tower) -> tuple[Block, ...]:
        last = of.blocks[-1]
        return (*of.blocks[:-1], replace(last, **{role: make(last) for role, make in parts.items()}))

    return change


def doubled(_self: nn.Module, x: Tensor) -> Tensor:
    return 2 * x


def with_own_forward(block: Block) -> nn.Module:
    act = copy.deepcopy(block.act)
    act.forward = MethodType(doubled, act)
    return act


def forced(block: Block) -> QLinear:
    linear = copy.deepcopy(block.fc2)
    linear.use_kernel("reference")
    return linear


def of_scheme(scheme: Scheme) -> Callable[[Block], tuple[QLinear]]:
    return lambda block: (QLinear(block.fc1[0].weight, block.fc1[0].bias, scheme),)


def as_float(block: Block) -> tuple[nn.Linear]:
    return (nn.Linear(block.fc1[0].in_features, block.fc1[0].out_features),)


PER_TENSOR = replace(PRECISIONS["int8"], name="per tensor", activations=QuantSpec(False, "tensor"))
MISFITS: dict[str, Callable[[Tower], tuple[Block, ...]]] = {
    "unknown activation": swapped(act=lambda _: nn.Mish()),
    "activation with a known name": swapped(act=lambda _: QuickGELU()),
    "activation with a forward of its own": swapped(act=with_own_forward),
    "norm without weights": swapped(ln_1=lambda _: nn.LayerNorm(64, elementwise_affine=False)),
    "norm of queries without weights": swapped(q_norm=lambda _: nn.LayerNorm(32, elementwise_affine=False)),
    "norm with a forward of its own": swapped(ln_2=lambda _: LayerNorm(64)),
    "RMS norm without its epsilon": swapped(mlp_norm=lambda _: nn.RMSNorm(256)),
    "layer scale that is none": swapped(ls_1=lambda _: nn.Linear(64, 64)),
    "one float linear": swapped(fc1=as_float),
    "weight-only": swapped(fc1=of_scheme(PRECISIONS["int8-weight-only"])),
    "per-tensor activations": swapped(fc1=of_scheme(PER_TENSOR)),
    "symmetric and asymmetric": swapped(fc1=of_scheme(PRECISIONS["int8-symmetric"])),
    "two kernels": swapped(fc2=forced),
}


@pytest.mark.parametrize("misfit", MISFITS)
@torch.inference_mode()
def test_what_the_library_does_not_compute_is_left_to_the_modules(misfit: str) -> None:
    of = tower("open_clip CLIP")
    x, _ = rows_for(of, [4])
    assert FusedStack(of.blocks).fits(x)
    assert not FusedStack(MISFITS[misfit](of)).fits(x)


@pytest.mark.parametrize("precision", ["int8-weight-only", "fp32"])
@torch.inference_mode()
def test_other_schemes_are_left_to_the_modules(precision: str) -> None:
    of = tower("open_clip CLIP", precision=precision)
    pixels = torch.randn(2, 3, 32, 32)
    assert not of.stack.fits(torch.randn(2, 64))
    x, sequences = of.embed(pixels).flatten(0, 1), Sequences.equal(2, 17)
    rows = run_blocks(of.blocks, x, sequences, False, sequences.offsets[:-1])
    assert torch.equal(run_image(of, pixels), of.head(rows))


@torch.inference_mode()
def test_other_devices_are_left_to_the_modules() -> None:
    assert not tower("open_clip CLIP").stack.fits(torch.empty(2, 64, device="meta"))


@pytest.mark.parametrize("name", ["open_clip CLIP", "transformers CLIP", "timm vision_transformer"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_image_leaves_the_others_untouched(name: str, bad: float) -> None:
    of = model(name)
    pixels = torch.randn(4, *of.host.pixel_shape(of.module))
    expected = of.encode_image(pixels)
    pixels[2, 0, 5, 5] = bad
    found = of.encode_image(pixels)
    assert found[2].isnan().all()
    others = [0, 1, 3]
    assert torch.equal(found[others], expected[others])


@pytest.mark.parametrize("path", PATHS)
@torch.inference_mode()
def test_a_last_row_that_none_sees(path: str) -> None:
    of, ratios = tower("open_clip CLIP", "text"), []
    use(of, f"native/{path}")
    for lengths in LENGTHS.values():
        x, sequences = rows_for(of, lengths)
        unseen = Sequences.of_lengths(torch.tensor(lengths), last_unseen=True)
        whole = fused(of, x, unseen)
        for keep in keeps(unseen):
            truth = exact(of, x, unseen, keep)
            ratios.append(rms(fused(of, x, unseen, keep) - truth) / rms(by_reference(of, x, unseen, keep) - truth))
            assert keep is None or torch.equal(fused(of, x, unseen, keep), whole[keep])
        assert max(lengths) == 1 or not torch.equal(whole, fused(of, x, sequences))
    assert max(ratios) <= 2 and sum(ratios) / len(ratios) <= ON_AVERAGE, ratios


def test_a_gradient_is_refused() -> None:
    of = tower("open_clip CLIP")
    x, sequences = rows_for(of, [3])
    x.requires_grad_()
    with pytest.raises(QuantizationError, match="no gradient"):
        fused(of, x, sequences)
    with torch.no_grad():
        assert not fused(of, x, sequences).requires_grad


def test_linears_without_a_bias_have_one_of_zeros() -> None:
    of = tower("open_clip CLIP")
    for linear in linears(of):
        linear.bias = None
        linear.drop_kernel()
    x, sequences = rows_for(of, [3, 2])
    with torch.inference_mode():
        truth = exact(of, x, sequences, None)
        found, expected = fused(of, x, sequences), by_reference(of, x, sequences)
    assert rms(found - truth) <= EACH * rms(expected - truth)


@torch.inference_mode()
def test_each_norm_has_its_own_epsilon() -> None:
    of = tower("open_clip CLIP")
    for norm, eps in zip((of.blocks[0].ln_1, of.blocks[0].ln_2), (0.5, 3.0), strict=True):
        norm.eps = eps
    x, sequences = rows_for(of, [3, 9])
    truth = exact(of, x, sequences, None)
    found, expected = fused(of, x, sequences), by_reference(of, x, sequences)
    assert rms(found - truth) <= EACH * rms(expected - truth)


def test_symmetric_activations_run_whole_stacks_too() -> None:
    of = tower("transformers CLIP", precision=resolve("int8-symmetric"))
    x, sequences = rows_for(of, [3, 9])
    with torch.inference_mode():
        truth = exact(of, x, sequences, None)
        found, expected = fused(of, x, sequences), by_reference(of, x, sequences)
    assert rms(found - truth) <= EACH * rms(expected - truth)
