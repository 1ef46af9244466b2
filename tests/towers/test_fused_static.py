"""Whole stacks of static blocks in one native call against the same blocks linear by linear."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from fused_helpers import by_reference, exact, fused, keeps, linears, rms, rows_for, use
from tiny_models import build

from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import ClipqWarning
from clipq.hosts import find_host
from clipq.methods.quantization import quantize
from clipq.models import Model
from clipq.modules.layers import QLinear
from clipq.native import library
from clipq.towers.fused import FusedStack
from clipq.towers.rows import Tower
from clipq.towers.transformer import Sequences, run_blocks

pytestmark = pytest.mark.skipif(not library.available(), reason=f"no native library: {library.why_not()}")
PATHS = library.supported_paths()
STATIC = replace(PRECISIONS["int8-static"], steps=("observe-minmax",))
SYMMETRIC = replace(STATIC, activations=QuantSpec(granularity="tensor", dynamic=False))
CASES = {
    "GELU": ("open_clip CLIP", "image", STATIC),
    "symmetric": ("open_clip CLIP", "image", SYMMETRIC),
    "causal": ("open_clip CLIP", "text", STATIC),
    "layer scale": ("open_clip drops and scales", "image", STATIC),
    "three projections": ("transformers CLIP", "image", STATIC),
    "three projections, causal": ("transformers CLIP", "text", SYMMETRIC),
    "timm scales": ("timm scales", "image", STATIC),
}


def tower(case: str) -> Tower:
    name, which, scheme = CASES[case]
    module = build(name)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model = Model(module)
    given = {tower: batch for tower, batch in inputs_of(module).items() if tower in model.towers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipqWarning)
        quantize(model, scheme, calibration=given)
    return model.host.tower(module, which)


def inputs_of(module) -> dict[str, torch.Tensor]:
    host = find_host(module)
    given = {"image": torch.randn(6, *host.pixel_shape(module))}
    if "text" in host.towers(module):
        given["text"] = torch.randint(2, 95, (6, host.context_length(module)))
        given["text"][:, -1] = 99
    return given


def calibrated_rows(of: Tower, lengths: list[int]) -> tuple[torch.Tensor, Sequences]:
    """Rows, and a layer's ranges that they mostly stay in: those of the calibration were of other rows."""
    x, sequences = rows_for(of, lengths)
    return x / 4, sequences


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_a_stack_is_its_linears_one_by_one(case: str, path: str) -> None:
    """Integers alike, so that what differs is float32's rounding of attention, norms and activations."""
    of = tower(case)
    use(of, f"native/{path}")
    x, sequences = calibrated_rows(of, [3, 7, 1, 4])
    for keep in keeps(sequences)[:3]:
        found = fused(of, x, sequences, keep)
        single = run_blocks(of.blocks, x, sequences, of.causal, keep)
        truth = exact(of, x, sequences, keep)
        assert rms(found - single) <= 0.35 * rms(single - truth)
        assert rms(found - truth) <= 1.3 * rms(by_reference(of, x, sequences, keep) - truth)


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_rows_depend_on_no_company_no_threads_and_no_path(case: str) -> None:
    of = tower(case)
    lengths = [9, 3, 30, 1, 17]
    x, sequences = calibrated_rows(of, lengths)
    whole, before = fused(of, x, sequences), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(fused(of, x, sequences), whole)
    finally:
        torch.set_num_threads(before)
    alone = [fused(of, part, Sequences.of_lengths(torch.tensor([len(part)]))) for part in x.split(lengths)]
    assert torch.equal(torch.cat(alone), whole)
    for keep in keeps(sequences)[1:]:
        assert torch.equal(fused(of, x, sequences, keep), whole[keep])


@torch.inference_mode()
def test_a_bad_row_poisons_its_sequence_alone_and_a_loud_one_stays_finite() -> None:
    of = tower("GELU")
    x, sequences = calibrated_rows(of, [4, 5, 6])
    clean = fused(of, x, sequences)
    x[5, 7] = float("inf")
    found = fused(of, x, sequences)
    assert found[4:9].isnan().any(0).all() and found[5].isnan().all()
    assert torch.equal(found[:4], clean[:4]) and torch.equal(found[9:], clean[9:])
    assert fused(of, x[:4] * 1e6, Sequences.of_lengths(torch.tensor([4]))).isfinite().all()


@torch.inference_mode()
def test_a_new_range_is_packed_anew() -> None:
    of = tower("GELU")
    x, sequences = calibrated_rows(of, [4])
    before = fused(of, x, sequences)
    linear = of.blocks[0].fc2
    linear.input_scale = linear.input_scale * 3
    linear.drop_kernel()
    after = fused(of, x, sequences)
    assert not torch.equal(after, before)
    truth = exact(of, x, sequences, None)
    assert rms(after - truth) <= 1.3 * rms(by_reference(of, x, sequences) - truth)


@torch.inference_mode()
def test_queries_and_keys_of_other_ranges_are_left_to_the_modules() -> None:
    of = tower("three projections")
    x, _ = calibrated_rows(of, [4])
    assert FusedStack(of.blocks).fits(x)
    last = of.blocks[-1]
    query = copy.deepcopy(last.qkv[0])
    query.input_scale = query.input_scale * 2
    query.drop_kernel()
    assert not FusedStack((*of.blocks[:-1], replace(last, qkv=(query, *last.qkv[1:])))).fits(x)


@torch.inference_mode()
def test_dynamic_and_static_linears_may_share_a_block() -> None:
    of = tower("GELU")
    x, sequences = calibrated_rows(of, [3, 9])
    last = of.blocks[-1]
    dynamic = QLinear(last.fc2.weight, last.fc2.bias, PRECISIONS["int8"])
    mixed = replace(of, blocks=(*of.blocks[:-1], replace(last, fc2=dynamic)))
    assert mixed.stack.fits(x) and len(linears(mixed)) == len(linears(of))
    truth = exact(mixed, x, sequences, None)
    assert rms(fused(mixed, x, sequences) - truth) <= 1.3 * rms(by_reference(mixed, x, sequences) - truth)
